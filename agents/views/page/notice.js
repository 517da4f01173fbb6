/** The notice: what went wrong or was not understood, and what to do. */

export class Notice {
  /** guessed(text): the change that a guess stands for, or null. */
  constructor(elements, { onRetry, onGuess, guessed }) {
    Object.assign(this, elements);
    this.guessed = guessed;
    this.notes = [];
    this.problem = null;
    this.retry.addEventListener("click", () => onRetry());
    this.guess.addEventListener("click", () => {
      const part = this.problem && this.guessed(this.problem.guess);
      if (part) onGuess(part);
    });
  }

  /** What the address said that could not be taken. */
  note(notes) {
    this.notes = notes;
  }

  /** Shows a problem, or the notes, or nothing. */
  tell(problem) {
    this.problem = problem;
    this.box.hidden = !problem && this.notes.length === 0;
    this.box.dataset.status = problem ? String(problem.status) : "";
    this.title.textContent = problem ? (problem.status === 503 ? "This part of the data is being restored." : problem.title) : this.notes.join(" ");
    this.detail.textContent = problem?.detail ?? "";
    this.fix.textContent = problem?.fix ?? "";
    this.retry.hidden = !problem;
    this.guess.hidden = !problem?.guess || this.guessed(problem.guess) === null;
    this.guess.textContent = problem?.guess ? `Did you mean ${problem.guess}?` : "";
  }

  /** Adds when it is tried again. */
  again(words) {
    this.fix.textContent = [this.problem?.fix, words].filter(Boolean).join(" ");
  }
}
