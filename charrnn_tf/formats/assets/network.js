/** Half-precision numbers from their bits. */
function halves(words) {
  const out = new Float32Array(words.length);
  for (let n = 0; n < words.length; n += 1) {
    const sign = words[n] & 0x8000 ? -1 : 1;
    const exponent = (words[n] >> 10) & 31;
    const fraction = words[n] & 1023;
    out[n] = sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
  }
  return out;
}

/** A stored matrix or bias as float32 numbers, row after row. */
function restored(stored) {
  if (stored.kind === "float32") return numbers(Float32Array, stored.numbers);
  if (stored.kind === "float16") return halves(numbers(Uint16Array, stored.numbers));
  const whole = numbers(Int8Array, stored.numbers);
  const scales = numbers(Float32Array, stored.scales);
  const columns = whole.length / scales.length;
  const out = new Float32Array(whole.length);
  for (let row = 0, n = 0; row < scales.length; row += 1) {
    for (const end = n + columns; n < end; n += 1) out[n] = whole[n] * scales[row];
  }
  return out;
}

/** out += matrix . x, for out.length rows of x.length numbers; four rows at once, so that x is read less often. */
function addProduct(out, matrix, x) {
  const columns = x.length;
  let row = 0;
  for (; row + 3 < out.length; row += 4) {
    const first = row * columns;
    const [second, third, fourth] = [first + columns, first + 2 * columns, first + 3 * columns];
    let a = 0, b = 0, c = 0, d = 0;
    for (let column = 0; column < columns; column += 1) {
      const value = x[column];
      a += matrix[first + column] * value;
      b += matrix[second + column] * value;
      c += matrix[third + column] * value;
      d += matrix[fourth + column] * value;
    }
    out[row] += a;
    out[row + 1] += b;
    out[row + 2] += c;
    out[row + 3] += d;
  }
  for (; row < out.length; row += 1) {
    for (let column = 0; column < columns; column += 1) out[row] += matrix[row * columns + column] * x[column];
  }
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/**
 * A character model: stacked LSTM or GRU layers between one input row per character and a dense output layer.
 *
 * Gates are in Keras's order: i, f, g, o (LSTM) and z, r, g (GRU, reset after the product).
 */
class Network {
  constructor(spec) {
    this.spec = spec;
    this.hidden = spec.hidden;
    this.gates = spec.gates * spec.hidden;
    this.weights = Object.fromEntries(Object.entries(spec.weights).map(([name, stored]) => [name, restored(stored)]));
  }

  /** Zeros for each layer's hidden and cell state; a GRU uses only the first. */
  zeroState() {
    return Array.from({ length: this.spec.layers }, () => ({
      hidden: new Float32Array(this.hidden), cell: new Float32Array(this.hidden),
    }));
  }

  /** The state before a text: zeros, or, where every line is a text of its own, after a newline. */
  initialState() {
    const state = this.zeroState();
    if (this.spec.line_start !== null) this.step(this.spec.line_start, state);
    return state;
  }

  copyState(state) {
    return state.map(({ hidden, cell }) => ({ hidden: hidden.slice(), cell: cell.slice() }));
  }

  /** Read one character by its id: updates the state in place and returns the logits of the next character. */
  step(id, state) {
    if (id === this.spec.line_start) { // of a run with `lines`
      for (const { hidden, cell } of state) [hidden, cell].forEach((part) => part.fill(0));
    }
    let x = null;
    for (let n = 0; n < this.spec.layers; n += 1) {
      const inputs = this.inputs(n, id, x);
      x = this[this.spec.cell](n, inputs, state[n]);
    }
    const logits = this.weights.output_bias.slice();
    addProduct(logits, this.weights.output, x);
    return logits;
  }

  /** Contribution of a layer's input, a character or the previous layer's output, to its gates, with the bias. */
  inputs(n, id, x) {
    const row = (matrix, length) => matrix.subarray(id * length, (id + 1) * length);
    const gates = this.weights[`bias_${n}`].slice(0, this.gates);
    if (n === 0 && !this.spec.embedding) {
      const own = row(this.weights.input, this.gates);
      for (let k = 0; k < this.gates; k += 1) gates[k] += own[k];
    } else {
      addProduct(gates, this.weights[`kernel_${n}`], n ? x : row(this.weights.input, this.spec.embedding));
    }
    return gates;
  }

  lstm(n, gates, state) {
    const H = this.hidden;
    addProduct(gates, this.weights[`recurrent_${n}`], state.hidden);
    for (let k = 0; k < H; k += 1) {
      const cell = sigmoid(gates[H + k]) * state.cell[k] + sigmoid(gates[k]) * Math.tanh(gates[2 * H + k]);
      state.cell[k] = cell;
      state.hidden[k] = sigmoid(gates[3 * H + k]) * Math.tanh(cell);
    }
    return state.hidden;
  }

  gru(n, inputs, state) {
    const H = this.hidden;
    const recurrent = this.weights[`bias_${n}`].slice(this.gates);
    addProduct(recurrent, this.weights[`recurrent_${n}`], state.hidden);
    for (let k = 0; k < H; k += 1) {
      const z = sigmoid(inputs[k] + recurrent[k]);
      const r = sigmoid(inputs[H + k] + recurrent[H + k]);
      const g = Math.tanh(inputs[2 * H + k] + r * recurrent[2 * H + k]);
      state.hidden[k] = z * state.hidden[k] + (1 - z) * g;
    }
    return state.hidden;
  }
}

/** Bits of surprise at an id: -log2 of its probability. */
function surprise(logits, id) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
  return (Math.log(total) + largest - logits[id]) / Math.LN2;
}

/**
 * Draw an id as the package does: temperature (0: the likeliest), then the topN likeliest (0: all), then the smallest set of
 * likeliest ones whose probabilities reach topP. uniform: a number in [0, 1).
 */
function choose(logits, uniform, { temperature, topN, topP }) {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  if (temperature === 0) return order[0];
  const kept = order.slice(0, topN > 0 ? topN : order.length);
  const weights = kept.map((id) => Math.exp((logits[id] - logits[kept[0]]) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  let last = 0;
  for (let reached = weights[0]; topP < 1 && reached < topP * total && last + 1 < kept.length; reached += weights[last]) last += 1;
  if (topP >= 1) last = kept.length - 1;
  let left = uniform * weights.slice(0, last + 1).reduce((a, b) => a + b, 0);
  for (let n = 0; n < last; n += 1) {
    left -= weights[n];
    if (left < 0) return kept[n];
  }
  return kept[last];
}

/** Random numbers in [0, 1) from a seed: Bob Jenkins's small fast generator with 32-bit words. */
function generator(seed) {
  let [a, b, c, d] = [0xf1ea5eed, seed >>> 0, seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
  const rotate = (x, k) => (x << k) | (x >>> (32 - k));
  const next = () => {
    const e = (a - rotate(b, 27)) | 0;
    a = b ^ rotate(c, 17);
    b = (c + d) | 0;
    c = (d + e) | 0;
    d = (e + a) | 0;
    return (d >>> 0) / 2 ** 32;
  };
  for (let n = 0; n < 20; n += 1) next();
  return next;
}
