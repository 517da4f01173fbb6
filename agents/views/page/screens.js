/**
 * The screens: one object each, in the order of the navigation.  The shell (main.js) has the address, the time, the
 * basis, the company list, the notice and the words about freshness; a screen has one <section> and says what it asks.
 *
 *     name, title                           as the address and the navigation call it
 *     companies                             true: the list of companies stands beside it, and it is about the chosen one
 *     always                                true: it is of use while nothing else can be asked: it asks without `world`, and
 *                                           what it has is drawn whatever failed
 *     build(root, {change})                 once: fills the section
 *     complete(question, world)             the question with what the address left open; without it as it is
 *     heading(question, world)              what the window is called
 *     show(root, question, {change, href, world})
 *                                           what follows from the question alone, at once on each change, also while the
 *                                           slider is dragged; world is null until the worker has answered once
 *     ask(question, {get, signal, world})   the answers; throws Problem.  `failures` among them: Problems of parts, the
 *                                           rest is drawn;  `empty`: words, there is nothing to show yet
 *     draw(root, question, answers, {change, href, world})
 *     failed(root, question, problem)       no answers: what stands on the screen belongs to another question, take it off
 *     follows(question, answers)            what /v1/stream is asked for, a list of its parameters (a list as value: the
 *                                           parameter several times); [] or no such function: nothing
 *     shows(answers, kind, said)            whether a frame of the stream (`value`, `milestone`) says what is shown already
 *
 * Needed are name, title, ask and draw.  `change({…})` moves the question, also to another screen; `href({…})` is the
 * address of the question moved so: a link made of it is followed without loading the page anew.  What an address says
 * beyond the common parameters is `question.own`, texts by name, and stays with its screen: change({own: {key: "…"}}).
 * `world` is {org, metrics, range: {from, to} | null, companies, more, nameOf(company)}: what can be asked; without any
 * definitions `org` is "" and a screen about them asks nothing and says so.
 */

import company from "./screens/company.js";
import identity from "./screens/identity.js";
import metric from "./screens/metric.js";
import overview from "./screens/overview.js";
import pipeline from "./screens/pipeline.js";

export const SCREENS = [overview, company, metric, identity, pipeline];
