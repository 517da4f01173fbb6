/**
 * The door: where the worker asks for a token, the page asks its reader, once.
 *
 *     401 -> a dialog -> POST /v1/session -> a cookie that no script reads -> the call again, and the stream
 *
 * The token is in no variable that outlives the dialog, in no address and in no storage.
 */

let asking = null;

/** Asks for a token; however many calls wait, there is one dialog.  True when the worker took it. */
export function enter() {
  asking ??= ask().finally(() => { asking = null; });
  return asking;
}

function ask() {
  const dialog = document.createElement("dialog");
  dialog.id = "door";
  dialog.setAttribute("aria-labelledby", "door-title");
  const form = document.createElement("form");
  const title = Object.assign(document.createElement("h2"), { id: "door-title", textContent: "A token is needed" });
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "password", required: true, autocomplete: "off", spellcheck: false });
  label.append("API token, as of `milepost tokens create`", input);
  const said = Object.assign(document.createElement("p"), { className: "error" });
  said.setAttribute("role", "alert");
  const button = Object.assign(document.createElement("button"), { type: "submit", textContent: "Come in" });
  form.append(title, label, said, button);
  dialog.append(form);
  document.body.append(dialog);
  return new Promise((done) => {
    const end = (took) => { input.value = ""; dialog.remove(); done(took); };
    dialog.addEventListener("cancel", () => end(false));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      const why = await show(input.value.trim());
      button.disabled = false;
      if (why === "") return end(true);
      said.textContent = why;
      input.select();
    });
    dialog.showModal();
    input.focus();
  });
}

/** Shows the token to the worker; why it was not taken, or nothing. */
async function show(token) {
  try {
    const response = await fetch("/v1/session", {
      method: "POST", headers: { authorization: `Bearer ${token}` }, credentials: "same-origin", cache: "no-store",
    });
    if (response.ok) return "";
    return response.status === 401 ? "That token opens nothing here." : `The worker answered ${response.status}.`;
  } catch {
    return "The worker cannot be reached, or that is no token.";
  }
}
