// The forward pass of lesson 06's GPT and of lesson 16's, in plain JavaScript: no library, no network. The products of
// matrices, which take nearly all of the time, are WebAssembly's where there is one (kernel.js).
// Shapes as in the lessons: T positions, C channels (n_embd), H heads, V tokens. Matrices are (rows out, columns in).
// y[t, o] = sum over i of weight[o, i] x[t, i], plus a bias where there is one. x is (T, I), weight (O, I).
function linear(x, T, weight, bias) {
  if (weight.kernel === undefined) {
    return linearInJavaScript(x, T, weight, bias);
  }
  const y = weight.kernel.product(x, T, weight.at, weight.shape);
  if (bias) {
    const O = weight.shape[0];
    for (let i = 0; i < y.length; i++) {
      y[i] += bias.data[i % O];
    }
  }
  return y;
}

// The same where there is no WebAssembly; several times as slow.
function linearInJavaScript(x, T, weight, bias) {
  const [O, I] = weight.shape;
  const w = weight.data;
  const y = new Float32Array(T * O);
  // Row by row of the weights, so that each is fetched once for all positions; four positions at a time, because each
  // weight then serves four products, and four sums need not wait for one another.
  let t = 0;
  for (; t + 3 < T; t += 4) {
    const at = t * I;
    for (let o = 0; o < O; o++) {
      const row = o * I;
      let a = 0;
      let b = 0;
      let c = 0;
      let d = 0;
      for (let i = 0; i < I; i++) {
        const value = w[row + i];
        a += value * x[at + i];
        b += value * x[at + I + i];
        c += value * x[at + 2 * I + i];
        d += value * x[at + 3 * I + i];
      }
      const start = bias ? bias.data[o] : 0;
      y[t * O + o] = start + a;
      y[(t + 1) * O + o] = start + b;
      y[(t + 2) * O + o] = start + c;
      y[(t + 3) * O + o] = start + d;
    }
  }
  for (; t < T; t++) {
    const at = t * I;
    for (let o = 0; o < O; o++) {
      const row = o * I;
      let a = 0;
      let b = 0;
      let i = 0;
      for (; i + 1 < I; i += 2) {
        a += w[row + i] * x[at + i];
        b += w[row + i + 1] * x[at + i + 1];
      }
      if (i < I) {
        a += w[row + i] * x[at + i];
      }
      y[t * O + o] = (bias ? bias.data[o] : 0) + a + b;
    }
  }
  return y;
}

// Layer norm or RMSNorm of rows of `size` numbers. gain and bias may be missing.
function norm(x, size, kind, gain, bias) {
  const y = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += size) {
    let mean = 0;
    if (kind === "layer") {
      for (let i = 0; i < size; i++) {
        mean += x[at + i];
      }
      mean /= size;
    }
    let square = 0;
    for (let i = 0; i < size; i++) {
      square += (x[at + i] - mean) ** 2;
    }
    // PyTorch's epsilons: 1e-5 for both norms with a gain; a float's own for the norm of queries and keys.
    const epsilon = gain ? 1e-5 : 1.1920929e-7;
    const scale = 1 / Math.sqrt(square / size + epsilon);
    for (let i = 0; i < size; i++) {
      let value = (x[at + i] - mean) * scale;
      if (gain) {
        value *= gain.data[i];
      }
      if (bias) {
        value += bias.data[i];
      }
      y[at + i] = value;
    }
  }
  return y;
}

// The error function, to 1.5e-7 (Abramowitz and Stegun, 1964, 7.1.26).
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum =
    t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

const ACTIVATIONS = {
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + Math.exp(-x)),
};

// The rows of the n-gram tables (lesson 16), in 64 bits that wrap around. ids: all tokens up to the last one.
function ngramRows(ids, t, nGram, rows) {
  let code = BigInt(ids[t]);
  const found = [];
  for (let distance = 1; distance < nGram; distance++) {
    const earlier = t >= distance ? BigInt(ids[t - distance]) : -1n;
    code = BigInt.asIntN(64, code * 1000003n + earlier + 1n);
    const mixed = BigInt.asIntN(64, code ^ (code >> 17n));
    // JavaScript's remainder has the sign of the number, PyTorch's that of the divisor.
    const size = BigInt(rows);
    found.push(Number(((mixed % size) + size) % size));
  }
  return found;
}

class Model {
  // spec: {config, tensors: [{name, shape, offset, bits}]}, the numbers of all tensors in one buffer. A tensor of 8 bits is
  // its rows' scales in float32, then its rows of int8; one of 32 bits is float32.
  constructor(spec, buffer) {
    this.config = spec.config;
    this.tensors = {};
    const matrices = spec.tensors.filter(({ bits }) => bits === 8);
    let kernel;
    try {
      kernel = new Kernel(matrices.map(({ shape }) => shape), MOST_ROWS);
    } catch {
      kernel = undefined;
    }
    for (const { name, shape, offset, bits } of spec.tensors) {
      if (bits === 32) {
        const size = shape.reduce((a, b) => a * b, 1);
        this.tensors[name] = { shape, data: new Float32Array(buffer, offset, size) };
      } else {
        this.tensors[name] = unpack(shape, buffer, offset, kernel);
      }
    }
    this.modern = spec.config.model_type === "modern";
    this.normKind = this.modern && spec.config.norm === "rms" ? "rms" : "layer";
    this.kvHeads = spec.config.n_kv_head || spec.config.n_head;
    this.headSize = spec.config.n_embd / spec.config.n_head;
  }

  // What has been read: its ids, and the keys and values of each layer.
  emptyCache() {
    const width = this.kvHeads * this.headSize * this.config.block_size;
    const layers = [];
    for (let l = 0; l < this.config.n_layer; l++) {
      layers.push({ k: new Float32Array(width), v: new Float32Array(width) });
    }
    return { ids: [], layers };
  }

  // Reads ids after what the cache holds -> {logits (T, V), and if asked to watch:
  //   attention: of each position a row (L, H, length), length = how many positions it sees;
  //   stages: the residual stream after the embedding and after each block, L + 1 arrays (T, C)}.
  // off: {heads: Set of "layer.head", attention: Set of layers, feedForward: Set of layers}.
  forward(ids, cache, off = {}, watch = false) {
    const { n_embd: C, n_layer: L, n_head: H, block_size } = this.config;
    const T = ids.length;
    const start = cache.ids.length;
    if (start + T > block_size) {
      throw new RangeError(`${start + T} tokens, but the block has ${block_size}`);
    }
    const all = cache.ids.concat(ids);
    let x = this.embed(ids, all, start);
    const attention = [];
    if (watch) {
      for (let t = 0; t < T; t++) {
        attention.push(new Float32Array(L * H * (start + t + 1)));
      }
    }
    const stages = [x];
    for (let l = 0; l < L; l++) {
      const part = (name) => this.tensors[`blocks.${l}.${name}`];
      if (!off.attention?.has(l)) {
        const normed = norm(x, C, this.normKind, part("norm_1.weight"), part("norm_1.bias"));
        x = add(x, this.attend(normed, T, l, cache, start, off.heads, attention));
      }
      if (!off.feedForward?.has(l)) {
        const normed = norm(x, C, this.normKind, part("norm_2.weight"), part("norm_2.bias"));
        x = add(x, this.feedForward(normed, T, part));
      }
      stages.push(x);
    }
    cache.ids = all;
    return { logits: this.unembed(x, T), attention, stages };
  }

  embed(ids, all, start) {
    const { n_embd: C, n_gram, n_gram_rows } = this.config;
    const tokens = this.tensors["token_embedding.weight"];
    const positions = this.tensors["position_embedding.weight"];
    const x = new Float32Array(ids.length * C);
    const addRow = (t, table, row) => {
      for (let c = 0; c < C; c++) {
        x[t * C + c] += table.data[row * table.stride + c];
      }
    };
    for (let t = 0; t < ids.length; t++) {
      addRow(t, tokens, ids[t]);
      if (positions) {
        addRow(t, positions, start + t);
      }
      if (n_gram > 0) {
        ngramRows(all, start + t, n_gram, n_gram_rows).forEach((row, n) => {
          addRow(t, this.tensors[`n_gram_embedding.tables.${n}.weight`], row);
        });
      }
    }
    return x;
  }

  // x (T, C) -> what the heads of layer l write, (T, C).
  attend(x, T, l, cache, start, headsOff, attention) {
    const { n_embd: C, n_head: H } = this.config;
    const width = this.kvHeads * this.headSize;
    const [q, k, v] = this.project(x, T, l, start);
    cache.layers[l].k.set(k, start * width);
    cache.layers[l].v.set(v, start * width);
    const out = new Float32Array(T * C);
    for (let h = 0; h < H; h++) {
      for (let t = 0; t < T; t++) {
        const weights = this.attentionWeights(q, cache.layers[l].k, h, t, start + t + 1);
        if (attention.length > 0) {
          attention[t].set(weights, (l * H + h) * weights.length);
        }
        if (!headsOff?.has(`${l}.${h}`)) {
          this.addValues(out, weights, cache.layers[l].v, h, t);
        }
      }
    }
    return linear(out, T, this.tensors[`blocks.${l}.attention.proj.weight`], this.tensors[`blocks.${l}.attention.proj.bias`]);
  }

  // x (T, C) -> queries (T, C), keys and values (T, kvHeads * headSize).
  project(x, T, l, start) {
    const { n_embd: C, n_head: H } = this.config;
    const part = (name) => this.tensors[`blocks.${l}.attention.${name}`];
    if (!this.modern) {
      const qkv = linear(x, T, part("qkv.weight"), part("qkv.bias"));
      return [0, 1, 2].map((which) => {
        const one = new Float32Array(T * C);
        for (let t = 0; t < T; t++) {
          one.set(qkv.subarray((3 * t + which) * C, (3 * t + which + 1) * C), t * C);
        }
        return one;
      });
    }
    let q = linear(x, T, part("q.weight"));
    let k = linear(x, T, part("k.weight"));
    const v = linear(x, T, part("v.weight"));
    if (this.config.qk_norm) {
      q = norm(q, this.headSize, "rms");
      k = norm(k, this.headSize, "rms");
    }
    if (this.config.positions === "rope") {
      this.rotate(q, T, H, start);
      this.rotate(k, T, this.kvHeads, start);
    }
    return [q, k, v];
  }

  // Where head h looks from the t-th of the queries: (seen), which sum to 1.
  attentionWeights(q, keys, h, t, seen) {
    const size = this.headSize;
    const width = this.kvHeads * size;
    const query = t * this.config.n_embd + h * size;
    const key = this.kvHeadOf(h) * size;
    const weights = new Float32Array(seen);
    let largest = -Infinity;
    for (let s = 0; s < seen; s++) {
      let score = 0;
      for (let i = 0; i < size; i++) {
        score += q[query + i] * keys[s * width + key + i];
      }
      weights[s] = score / Math.sqrt(size);
      largest = Math.max(largest, weights[s]);
    }
    let total = 0;
    for (let s = 0; s < seen; s++) {
      weights[s] = Math.exp(weights[s] - largest);
      total += weights[s];
    }
    for (let s = 0; s < seen; s++) {
      weights[s] /= total;
    }
    return weights;
  }

  // Adds head h's mean of the values, weighted, to row t of out (T, C).
  addValues(out, weights, values, h, t) {
    const size = this.headSize;
    const width = this.kvHeads * size;
    const to = t * this.config.n_embd + h * size;
    const from = this.kvHeadOf(h) * size;
    for (let s = 0; s < weights.length; s++) {
      for (let i = 0; i < size; i++) {
        out[to + i] += weights[s] * values[s * width + from + i];
      }
    }
  }

  // Several heads of queries may share one head of keys and values.
  kvHeadOf(h) {
    return Math.floor((h * this.kvHeads) / this.config.n_head);
  }

  // RoPE, in place: number i of a head's first half and number i of its second half are a pair.
  rotate(x, T, heads, start) {
    const half = this.headSize / 2;
    for (let t = 0; t < T; t++) {
      for (let i = 0; i < half; i++) {
        const angle = (start + t) * 10000 ** ((-2 * i) / this.headSize);
        const cos = Math.cos(angle);
        const sin = Math.sin(angle);
        for (let h = 0; h < heads; h++) {
          const at = (t * heads + h) * this.headSize + i;
          const a = x[at];
          const b = x[at + half];
          x[at] = a * cos - b * sin;
          x[at + half] = b * cos + a * sin;
        }
      }
    }
  }

  feedForward(x, T, part) {
    if (this.config.activation === "swiglu") {
      const gate = linear(x, T, part("feed_forward.gate.weight"));
      const up = linear(x, T, part("feed_forward.up.weight"));
      for (let i = 0; i < gate.length; i++) {
        gate[i] = ACTIVATIONS.silu(gate[i]) * up[i];
      }
      return linear(gate, T, part("feed_forward.proj.weight"));
    }
    const inside = linear(x, T, part("feed_forward.fc.weight"), part("feed_forward.fc.bias"));
    const activation = ACTIVATIONS[this.config.activation];
    for (let i = 0; i < inside.length; i++) {
      inside[i] = activation(inside[i]);
    }
    return linear(inside, T, part("feed_forward.proj.weight"), part("feed_forward.proj.bias"));
  }

  // x (T, C) -> logits (T, V).
  unembed(x, T) {
    const tensor = (name) => this.tensors[name];
    const normed = norm(x, this.config.n_embd, this.normKind, tensor("norm.weight"), tensor("norm.bias"));
    const head = tensor("lm_head.weight") ?? tensor("token_embedding.weight");
    const logits = linear(normed, T, head, tensor("lm_head.bias"));
    const cap = this.config.softcap;
    if (cap > 0) {
      for (let i = 0; i < logits.length; i++) {
        logits[i] = cap * Math.tanh(logits[i] / cap);
      }
    }
    return logits;
  }
}

const MOST_ROWS = 64; // that the kernel takes at a time

// A matrix of 8-bit rows and their scales -> {shape, data, kernel, at}. data: float32, each row `stride` numbers after the
// last; with a kernel, data lies in its memory.
function unpack(shape, buffer, offset, kernel) {
  const [rows, columns] = shape;
  const scales = new Float32Array(buffer, offset, rows);
  const small = new Int8Array(buffer, offset + 4 * rows, rows * columns);
  let stride = columns;
  let data = null;
  let at;
  if (kernel === undefined) {
    data = new Float32Array(rows * columns);
  } else {
    const room = kernel.place(shape);
    stride = padded(columns);
    data = room.numbers;
    at = room.at;
  }
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      data[r * stride + c] = small[r * columns + c] * scales[r];
    }
  }
  return { shape, data, stride, kernel, at };
}

function add(x, y) {
  const sum = new Float32Array(x.length);
  for (let i = 0; i < x.length; i++) {
    sum[i] = x[i] + y[i];
  }
  return sum;
}

// logits (V) -> the probabilities (V) to draw from, after temperature, topK, topP and minP, in this order (lesson 08).
function nextTokenProbs(logits, { temperature = 1, topK = null, topP = null, minP = null } = {}) {
  const V = logits.length;
  let largest = 0;
  for (let id = 1; id < V; id++) {
    if (logits[id] > logits[largest]) {
      largest = id;
    }
  }
  const p = new Float64Array(V);
  if (temperature === 0) {
    p[largest] = 1;
    return p;
  }
  const order = Array.from(p.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  // What equals the k-th is kept, too.
  const smallest = topK === null ? -Infinity : logits[order[Math.min(topK, V) - 1]];
  for (let id = 0; id < V; id++) {
    if (logits[id] >= smallest) {
      p[id] = Math.exp((logits[id] - logits[largest]) / temperature);
    }
  }
  normalize(p);
  if (topP !== null && topP < 1) {
    let before = 0;
    for (const id of order) {
      const share = p[id];
      if (before >= topP) {
        p[id] = 0;
      }
      before += share;
    }
  }
  if (minP !== null) {
    const least = minP * p[largest];
    for (let id = 0; id < V; id++) {
      if (p[id] < least) {
        p[id] = 0;
      }
    }
  }
  return normalize(p);
}

function normalize(p) {
  let total = 0;
  for (const share of p) {
    total += share;
  }
  for (let id = 0; id < p.length; id++) {
    p[id] /= total;
  }
  return p;
}

// Draws an id: probabilities (V), u uniform from 0 to 1. Never an id of probability 0.
function sampleFrom(p, u) {
  let last = 0;
  let end = 0;
  for (let id = 0; id < p.length; id++) {
    if (p[id] > 0) {
      last = id;
      end += p[id];
      if (u < end) {
        return id;
      }
    }
  }
  return last;
}

// Number n, from 0 on, of the uniform numbers from 0 to 1 that a seed gives (mulberry32, whose state only counts).
function uniform(seed, n) {
  const state = (seed + Math.imul(n + 1, 0x6d2b79f5)) >>> 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
}
