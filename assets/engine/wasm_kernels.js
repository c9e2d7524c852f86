/**
 * The product of float32 matrices with WebAssembly's SIMD instructions.
 *
 * The module is assembled here, instruction by instruction: it has one function for each block of `rows` by 4 *
 * `vectors` results, which adds up the products of a block in registers. The loops over the blocks are JavaScript.
 */

import { addCells } from "./matrix_product.js";

const I32 = 0x7f;
const V128 = 0x7b;
const PARAMETERS = ["a", "aRow", "aInner", "b", "bRow", "c", "cRow", "inner"];
/** Blocks of results, as [rows, vectors of four columns]; eight sums hide the time that an addition takes. */
const BLOCKS = [
  [4, 2],
  [4, 1],
  [1, 2],
  [1, 1],
];

/** @type {WebAssembly.Module | null | undefined} */
let compiled;

/**
 * @returns {WebAssembly.Module | null} null where WebAssembly or its SIMD instructions are missing or forbidden
 */
function module() {
  if (compiled === undefined) {
    try {
      compiled = new WebAssembly.Module(assembled());
    } catch {
      compiled = null;
    }
  }
  return compiled;
}

/** @returns {boolean} whether this browser multiplies with WebAssembly */
export function hasKernels() {
  return module() !== null;
}

/** Products of matrices that lie in one WebAssembly memory. */
export class Kernels {
  /** @param {number} bytes size of the memory */
  constructor(bytes) {
    this.memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) + 1 });
    const { exports } = new WebAssembly.Instance(/** @type {WebAssembly.Module} */ (module()), {
      m: { m: this.memory },
    });
    this.blocks = BLOCKS.map(([rows, vectors]) => /** @type {Function} */ (exports[`${rows}x${vectors}`]));
  }

  /**
   * Do the same as `addProduct` of matrix_product.js, for arrays in `memory`.
   *
   * @param {Float32Array} c
   * @param {Float32Array} a
   * @param {number} aRow
   * @param {number} aInner
   * @param {Float32Array} b
   * @param {number} rows
   * @param {number} inner
   * @param {number} columns
   */
  addProduct(c, a, aRow, aInner, b, rows, inner, columns) {
    const [wide4, narrow4, wide1, narrow1] = this.blocks;
    const eights = columns - (columns % 8);
    const fours = columns - (columns % 4);
    const rowBytes = 4 * columns;
    const bStart = b.byteOffset;
    for (let i = 0; i < rows;) {
      const many = i + 4 <= rows;
      const [wide, narrow] = many ? [wide4, narrow4] : [wide1, narrow1];
      const aStart = a.byteOffset + 4 * i * aRow;
      const cStart = c.byteOffset + i * rowBytes;
      for (let j = 0; j < eights; j += 8) {
        wide(aStart, 4 * aRow, 4 * aInner, bStart + 4 * j, rowBytes, cStart + 4 * j, rowBytes, inner);
      }
      if (eights < fours) {
        narrow(aStart, 4 * aRow, 4 * aInner, bStart + 4 * eights, rowBytes, cStart + 4 * eights, rowBytes, inner);
      }
      i += many ? 4 : 1;
    }
    addCells(c, a, aRow, aInner, b, 0, rows, inner, fours, columns);
  }
}

/** @returns {Uint8Array<ArrayBuffer>} the bytes of the module */
function assembled() {
  const types = section(1, vector([[0x60, ...vector(PARAMETERS.map(() => [I32])), 0]]));
  const imports = section(2, vector([[...text("m"), ...text("m"), 2, 0, 0]]));
  const functions = section(3, vector(BLOCKS.map(() => [0])));
  const exported = BLOCKS.map(([rows, vectors], i) => [...text(`${rows}x${vectors}`), 0, i]);
  const code = section(10, vector(BLOCKS.map(([rows, vectors]) => sized(block(rows, vectors)))));
  const header = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  return Uint8Array.from([...header, ...types, ...imports, ...functions, ...section(7, vector(exported)), ...code]);
}

/**
 * @param {number} rows
 * @param {number} vectors
 * @returns {number[]} the function that adds the products of one block
 */
function block(rows, vectors) {
  const rowNumbers = [...Array(rows).keys()];
  const vectorNumbers = [...Array(vectors).keys()];
  const [a, aRow, aInner, b, bRow, c, cRow, inner] = PARAMETERS.keys();
  // Locals: the place in each row of a, then the sums, the vectors of b, and one element of a in all four lanes.
  /** @type {(row: number) => number} */
  const place = (row) => PARAMETERS.length + row;
  /** @type {(row: number, vector: number) => number} */
  const sum = (row, vector) => PARAMETERS.length + rows + row * vectors + vector;
  /** @type {(vector: number) => number} */
  const right = (vector) => PARAMETERS.length + rows + rows * vectors + vector;
  const left = PARAMETERS.length + rows + rows * vectors + vectors;
  /** @type {(make: (row: number, vector: number) => number[]) => number[]} */
  const eachSum = (make) => rowNumbers.flatMap((row) => vectorNumbers.flatMap((vector) => make(row, vector)));
  /** @type {(row: number) => number[]} */
  const cPlace = (row) => [...get(c), ...Array.from({ length: row }, () => [...get(cRow), ADD]).flat()];

  const starts = rowNumbers.flatMap((row) => [
    ...get(a),
    ...get(aRow),
    ...constant(row),
    MULTIPLY,
    ADD,
    ...set(place(row)),
  ]);
  const loads = eachSum((row, vector) => [...cPlace(row), ...load(16 * vector), ...set(sum(row, vector))]);
  const loop = [
    ...vectorNumbers.flatMap((vector) => [...get(b), ...load(16 * vector), ...set(right(vector))]),
    ...rowNumbers.flatMap((row) => [
      ...get(place(row)),
      ...SPLAT,
      ...set(left),
      ...vectorNumbers.flatMap((vector) => [
        ...get(sum(row, vector)),
        ...get(left),
        ...get(right(vector)),
        ...TIMES,
        ...PLUS,
        ...set(sum(row, vector)),
      ]),
      ...get(place(row)),
      ...get(aInner),
      ADD,
      ...set(place(row)),
    ]),
    ...get(b),
    ...get(bRow),
    ADD,
    ...set(b),
    ...get(inner),
    ...constant(1),
    SUBTRACT,
    ...tee(inner),
  ];
  const stores = eachSum((row, vector) => [...cPlace(row), ...get(sum(row, vector)), ...store(16 * vector)]);
  const locals = vector([
    [rows, I32],
    [rows * vectors + vectors + 1, V128],
  ]);
  return [...locals, ...starts, ...loads, LOOP, EMPTY, ...loop, BRANCH_IF, 0, END, ...stores, END];
}

const LOOP = 0x03;
const EMPTY = 0x40;
const BRANCH_IF = 0x0d;
const END = 0x0b;
const ADD = 0x6a;
const SUBTRACT = 0x6b;
const MULTIPLY = 0x6c;
const SPLAT = [0xfd, 0x09, 2, 0];
const PLUS = [0xfd, 0xe4, 0x01];
const TIMES = [0xfd, 0xe6, 0x01];

/** @type {(local: number) => number[]} */
const get = (local) => [0x20, local];
/** @type {(local: number) => number[]} */
const set = (local) => [0x21, local];
/** @type {(local: number) => number[]} */
const tee = (local) => [0x22, local];
/** @type {(value: number) => number[]} */
const constant = (value) => [0x41, value];
/** @type {(offset: number) => number[]} */
const load = (offset) => [0xfd, 0x00, 2, offset];
/** @type {(offset: number) => number[]} */
const store = (offset) => [0xfd, 0x0b, 2, offset];
/** @type {(word: string) => number[]} */
const text = (word) => [word.length, ...new TextEncoder().encode(word)];
/** @type {(items: number[][]) => number[]} */
const vector = (items) => [items.length, ...items.flat()];
/** @type {(id: number, content: number[]) => number[]} */
const section = (id, content) => [id, ...sized(content)];
/** @type {(content: number[]) => number[]} with the length in front, in LEB128 */
const sized = (content) => [(content.length & 0x7f) | 0x80, content.length >> 7, ...content];
