/** Which of some counts are the largest, with PyTorch's choice among equal ones. */

/**
 * @param {ArrayLike<number>} counts
 * @param {number} k
 * @returns {number[]} the indices that torch.topk returns, in any order
 */
export function largest(counts, k) {
  const order = Array.from(counts, (_, i) => i);
  partition(order, (a, b) => counts[a] > counts[b], k - 1);
  return order.slice(0, k);
}

/**
 * Move the first `place` + 1 items of the order to the front, as std::nth_element of the GNU C++ library does.
 *
 * @param {number[]} items
 * @param {(a: number, b: number) => boolean} before whether `a` comes before `b`; false for equal items
 * @param {number} place
 */
function partition(items, before, place) {
  let first = 0;
  let end = items.length;
  while (end - first > 3) {
    movePivot(items, before, first, end);
    const cut = split(items, before, first, end);
    if (cut <= place) first = cut;
    else end = cut;
  }
  for (let i = first + 1; i < end; i++) {
    const item = items[i];
    let j = i;
    for (; j > first && before(item, items[j - 1]); j--) items[j] = items[j - 1];
    items[j] = item;
  }
}

/**
 * Exchange the first item with the median of the second, the middle and the last one.
 *
 * @param {number[]} items
 * @param {(a: number, b: number) => boolean} before
 * @param {number} first
 * @param {number} end
 */
function movePivot(items, before, first, end) {
  const [a, b, c] = [first + 1, first + Math.floor((end - first) / 2), end - 1];
  /** @type {(i: number, j: number) => boolean} */
  const earlier = (i, j) => before(items[i], items[j]);
  // Written as in the library, because equal items make a difference.
  const median = earlier(a, b)
    ? earlier(b, c)
      ? b
      : earlier(a, c)
        ? c
        : a
    : earlier(a, c)
      ? a
      : earlier(b, c)
        ? c
        : b;
  exchange(items, first, median);
}

/**
 * Put the items before the first one to the left of the others.
 *
 * @param {number[]} items
 * @param {(a: number, b: number) => boolean} before
 * @param {number} first
 * @param {number} end
 * @returns {number} where the others begin
 */
function split(items, before, first, end) {
  const pivot = items[first];
  let left = first + 1;
  let right = end;
  for (;;) {
    while (before(items[left], pivot)) left++;
    right--;
    while (before(pivot, items[right])) right--;
    if (left >= right) return left;
    exchange(items, left, right);
    left++;
  }
}

/** @type {(items: number[], a: number, b: number) => void} */
function exchange(items, a, b) {
  [items[a], items[b]] = [items[b], items[a]];
}
