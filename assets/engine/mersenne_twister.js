/** The Mersenne Twister MT19937, seeded as PyTorch seeds its generator on the CPU. */

const LENGTH = 624;
const MIDDLE = 397;

/** A source of random 32-bit numbers. */
export class MersenneTwister {
  /** @param {number} seed an integer; as in PyTorch only its lowest 32 bits count */
  constructor(seed) {
    this.state = new Uint32Array(LENGTH);
    this.state[0] = seed;
    for (let i = 1; i < LENGTH; i++) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
    this.next = LENGTH;
  }

  /** @returns {number} an integer from 0 to 2 ** 32 - 1 */
  random() {
    if (this.next === LENGTH) this.renew();
    let y = this.state[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** Compute the next 624 numbers. */
  renew() {
    const state = this.state;
    for (let i = 0; i < LENGTH; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % LENGTH] & 0x7fffffff);
      state[i] = state[(i + MIDDLE) % LENGTH] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }
}
