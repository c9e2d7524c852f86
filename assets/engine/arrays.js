/** The arrays of a network: in a WebAssembly memory for float32, ordinary ones otherwise. */

import { addProduct } from "./matrix_product.js";
import { hasKernels, Kernels } from "./wasm_kernels.js";

/** @typedef {Float32Array | Float64Array} Numbers */

/** Ordinary arrays, and products of them in JavaScript. */
class PlainArrays {
  /** @param {import("./protocol.js").Precision} precision */
  constructor(precision) {
    this.Kind = precision === "float64" ? Float64Array : Float32Array;
    this.addProduct = addProduct;
  }

  /**
   * @param {number} length
   * @returns {Numbers} a new array of zeros
   */
  take(length) {
    return new this.Kind(length);
  }
}

/** Only adds up how much memory would be taken. */
class Measure {
  constructor() {
    this.bytes = 0;
  }

  /**
   * @param {number} length
   * @returns {Numbers} an empty array
   */
  take(length) {
    this.bytes += aligned(4 * length);
    return new Float32Array(0);
  }
}

/** Arrays in one WebAssembly memory, which cannot grow, because that would detach them. */
class WasmArrays {
  /** @param {number} bytes */
  constructor(bytes) {
    this.kernels = new Kernels(bytes);
    this.addProduct = /** @type {typeof addProduct} */ (this.kernels.addProduct.bind(this.kernels));
    this.next = 0;
  }

  /**
   * @param {number} length
   * @returns {Numbers} a new array of zeros
   */
  take(length) {
    const array = new Float32Array(this.kernels.memory.buffer, this.next, length);
    this.next += aligned(4 * length);
    return array;
  }
}

/** @param {number} bytes */
const aligned = (bytes) => Math.ceil(bytes / 16) * 16;

/**
 * @typedef {object} Arrays
 * @property {(length: number) => Numbers} take a new array of zeros
 * @property {typeof addProduct} addProduct of arrays that were taken here
 */

/**
 * Build something from arrays in the fastest memory for a precision.
 *
 * @template T
 * @param {import("./protocol.js").Precision} precision
 * @param {(arrays: Arrays) => T} build takes arrays, and does nothing else: it is called twice to learn how many there
 *   are
 * @returns {T}
 */
export function withArrays(precision, build) {
  if (precision === "float64" || !hasKernels()) return build(new PlainArrays(precision));
  const measure = new Measure();
  build(/** @type {any} */ (measure));
  return build(new WasmArrays(measure.bytes));
}
