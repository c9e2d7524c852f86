/**
 * Logarithm, sine and cosine in float32, to the last bit those of PyTorch's normal numbers.
 *
 * On x86-64 PyTorch computes them with the polynomials of Cephes (Moshier 1992), eight numbers at once, and its compiler
 * has joined some products and sums to one operation with one rounding, which here is `fused`.
 */

const { fround } = Math;
/** @type {(a: number, b: number, c: number) => number} */
const fused = (a, b, c) => fround(a * b + c);

const bits = new Int32Array(1);
const number = new Float32Array(bits.buffer);

const LOG = [
  7.0376836292e-2, -1.151461031e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
].map(fround);
const SINE = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1].map(fround);
const COSINE = [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2].map(fround);
const FOUR_BY_PI = fround(4 / Math.PI);
/** -pi / 4 in three parts, of which the first two have few digits. */
const EIGHTH = [-0.78515625, -2.4187564849853516e-4, -3.774894977445941e-8].map(fround);
const LOG_2 = [fround(-2.1219444e-4), 0.693359375];
const SQRT_HALF = fround(Math.SQRT1_2);

/** @type {(coefficients: number[], x: number) => number} */
const polynomial = (coefficients, x) => coefficients.reduce((value, next) => fused(value, x, next));

/**
 * @param {number} x a positive float32
 * @returns {number}
 */
export function log32(x) {
  number[0] = x;
  let exponent = (bits[0] >> 23) - 126;
  bits[0] = (bits[0] & 0x807fffff) | 0x3f000000;
  let [mantissa] = number;
  if (mantissa < SQRT_HALF) {
    exponent--;
    mantissa = fround(fround(mantissa - 1) + mantissa);
  } else {
    mantissa = fround(mantissa - 1);
  }
  const square = fround(mantissa * mantissa);
  const cubic = fround(polynomial(LOG, mantissa) * mantissa);
  const rest = fused(-square, 0.5, fused(cubic, square, fround(exponent * LOG_2[0])));
  return fused(exponent, LOG_2[1], fround(mantissa + rest));
}

/**
 * @param {number} angle a float32 of at least 0
 * @returns {{sine: number, cosine: number}}
 */
export function sineAndCosine32(angle) {
  const octant = (Math.trunc(fround(angle * FOUR_BY_PI)) + 1) & ~1;
  const x = EIGHTH.reduce((rest, part) => fused(octant, part, rest), angle);
  const square = fround(x * x);
  const even = fround(polynomial(COSINE, square) * square);
  const cosine = fround(fused(even, square, -fround(square * 0.5)) + 1);
  const sine = fused(fround(polynomial(SINE, square) * square), x, x);
  const [first, second] = octant & 2 ? [cosine, sine] : [sine, cosine];
  return { sine: octant & 4 ? -first : first, cosine: ~(octant - 2) & 4 ? -second : second };
}
