/** What the trainings of the small problems share; they have the same members as a Training. */

import { checkpointSteps } from "./training.js";

/** A subclass has `move`, which takes a step and returns whether all its numbers are finite, and `found`. */
export class SmallProblem {
  /** @param {any} settings with defaults filled in, see small_settings.js */
  constructor(settings) {
    this.settings = settings;
    this.totalSteps = settings.steps;
    this.checkpointSteps = checkpointSteps(settings.checkpoints, settings.steps);
    this.steps = 0;
    this.diverged = false;
    /** @type {number | null} */
    this.divergedAt = null;
  }

  /** @returns {boolean} whether there is nothing left to do */
  get ended() {
    return this.diverged || this.steps >= this.totalSteps;
  }

  /** @returns {boolean} whether all numbers are finite after the step */
  move() {
    return true;
  }

  /** @returns {object} what a checkpoint tells besides the step */
  found() {
    return {};
  }

  /** @returns {any} the checkpoint before the first step */
  first() {
    return this.checkpoint();
  }

  /** @returns {any} the checkpoint after this step, or null if there is none */
  step() {
    this.steps++;
    if (!this.move()) this.divergedAt ??= this.steps;
    return this.checkpointSteps.has(this.steps) ? this.checkpoint() : null;
  }

  /** @returns {any} a checkpoint at any step; a run that has diverged ends with it */
  checkpoint() {
    this.diverged = this.divergedAt !== null;
    return { step: this.steps, ...this.found() };
  }
}
