/** Products of matrices in plain JavaScript, for float64 and where WebAssembly is missing. */

/**
 * Add the product of two matrices to a third one: c[i, j] += sum over k of a[i, k] * b[k, j].
 *
 * The element (i, k) of a is a[i * aRow + k * aInner], so that a may be the transpose of what is stored. The matrices b
 * and c are stored row by row. Blocks of 2 by 4 results are kept in local variables, which the compiler puts into
 * registers.
 *
 * @param {Float32Array | Float64Array} c shape (rows, columns)
 * @param {Float32Array | Float64Array} a
 * @param {number} aRow
 * @param {number} aInner
 * @param {Float32Array | Float64Array} b shape (inner, columns)
 * @param {number} rows
 * @param {number} inner
 * @param {number} columns
 */
export function addProduct(c, a, aRow, aInner, b, rows, inner, columns) {
  const wholeRows = rows - (rows % 2);
  const wholeColumns = columns - (columns % 4);
  for (let i = 0; i < wholeRows; i += 2) {
    for (let j = 0; j < wholeColumns; j += 4) addBlock(c, a, i * aRow, aRow, aInner, b, i, j, inner, columns);
  }
  addCells(c, a, aRow, aInner, b, 0, wholeRows, inner, wholeColumns, columns);
  addCells(c, a, aRow, aInner, b, wholeRows, rows, inner, 0, columns);
}

/**
 * Compute the columns from `firstColumn` on of the rows from `firstRow` to before `endRow`, one result at a time.
 *
 * @param {Float32Array | Float64Array} c
 * @param {Float32Array | Float64Array} a
 * @param {number} aRow
 * @param {number} aInner
 * @param {Float32Array | Float64Array} b
 * @param {number} firstRow
 * @param {number} endRow
 * @param {number} inner
 * @param {number} firstColumn
 * @param {number} columns
 */
export function addCells(c, a, aRow, aInner, b, firstRow, endRow, inner, firstColumn, columns) {
  for (let i = firstRow; i < endRow; i++) {
    for (let j = firstColumn; j < columns; j++) {
      let sum = c[i * columns + j];
      for (let k = 0, p = i * aRow, q = j; k < inner; k++, p += aInner, q += columns) sum += a[p] * b[q];
      c[i * columns + j] = sum;
    }
  }
}

/**
 * @param {Float32Array | Float64Array} c
 * @param {Float32Array | Float64Array} a
 * @param {number} start place of the first element of a
 * @param {number} aRow
 * @param {number} aInner
 * @param {Float32Array | Float64Array} b
 * @param {number} row first row of the block
 * @param {number} column first column of the block
 * @param {number} inner
 * @param {number} columns
 */
function addBlock(c, a, start, aRow, aInner, b, row, column, inner, columns) {
  const upper = row * columns + column;
  const lower = upper + columns;
  let c00 = c[upper];
  let c01 = c[upper + 1];
  let c02 = c[upper + 2];
  let c03 = c[upper + 3];
  let c10 = c[lower];
  let c11 = c[lower + 1];
  let c12 = c[lower + 2];
  let c13 = c[lower + 3];
  for (let k = 0, p = start, q = column; k < inner; k++, p += aInner, q += columns) {
    const a0 = a[p];
    const a1 = a[p + aRow];
    const b0 = b[q];
    const b1 = b[q + 1];
    const b2 = b[q + 2];
    const b3 = b[q + 3];
    c00 += a0 * b0;
    c01 += a0 * b1;
    c02 += a0 * b2;
    c03 += a0 * b3;
    c10 += a1 * b0;
    c11 += a1 * b1;
    c12 += a1 * b2;
    c13 += a1 * b3;
  }
  c[upper] = c00;
  c[upper + 1] = c01;
  c[upper + 2] = c02;
  c[upper + 3] = c03;
  c[lower] = c10;
  c[lower + 1] = c11;
  c[lower + 2] = c12;
  c[lower + 3] = c13;
}
