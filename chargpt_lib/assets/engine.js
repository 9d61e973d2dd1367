// What a page asks of the model: what a text costs, what comes next, where the heads look. It runs in a worker, so that
// the page can be typed in meanwhile. `Model`, `nextTokenProbs`, `sampleFrom` and `uniform` are in model.js, the
// windows in windows.js.

// A window of a text, read with some parts of the model off. Read again with other ids, it computes only from the first
// one that differs.
class Reading {
  constructor(model, off) {
    this.model = model;
    this.off = off;
    this.cache = model.emptyCache();
    this.nats = []; // nats[t]: the cost of token t; that of the first is null, because nothing predicts it
    this.attention = []; // attention[t] (L, H, t + 1)
    this.stages = []; // stages[t]: L + 1 arrays (C), the residual stream at t
  }

  read(ids) {
    let same = 0;
    while (same < ids.length && ids[same] === this.cache.ids[same]) {
      same += 1;
    }
    // What was read behind these ids stays: no position sees a later one.
    if (same < ids.length) {
      this.cache.ids = this.cache.ids.slice(0, same);
      for (const rows of [this.nats, this.attention, this.stages]) {
        rows.length = same;
      }
      this.append(ids.slice(same));
    }
    return this;
  }

  append(ids) {
    const { vocab_size: V, n_embd: C } = this.model.config;
    let before = this.stages.length === 0 ? null : this.logits(this.stages.length - 1);
    const { logits, attention, stages } = this.model.forward(ids, this.cache, this.off, true);
    this.attention.push(...attention);
    for (let t = 0; t < ids.length; t++) {
      this.nats.push(before === null ? null : -logProb(before, ids[t]));
      this.stages.push(stages.map((stage) => stage.subarray(t * C, (t + 1) * C)));
      before = logits.subarray(t * V, (t + 1) * V);
    }
  }

  // What comes after token t: (V). Computed when asked for; kept, they would fill the memory where V is large.
  logits(t) {
    return this.model.unembed(this.stages[t].at(-1), 1);
  }
}

// The logarithm of the probability that the softmax of logits (V) gives to an id.
function logProb(logits, id) {
  let largest = -Infinity;
  for (const logit of logits) {
    largest = Math.max(largest, logit);
  }
  let total = 0;
  for (const logit of logits) {
    total += Math.exp(logit - largest);
  }
  return logits[id] - largest - Math.log(total);
}

const MOST_READINGS = 4; // windows that are remembered: the last of the text, with and without what is off, and two more

class Engine {
  constructor(model, levels) {
    this.model = model;
    this.levels = levels; // the characters by which the viewer is told the weights
    this.block = model.config.block_size;
    this.readings = new Map();
  }

  // Window k of a text, read with these parts off. off: {heads: ["layer.head"], attention: [layer], feedForward: [layer]}.
  reading(ids, k, off) {
    const key = JSON.stringify([k, off]);
    let reading = this.readings.get(key);
    if (reading === undefined) {
      reading = new Reading(this.model, {
        heads: new Set(off.heads),
        attention: new Set(off.attention),
        feedForward: new Set(off.feedForward),
      });
    }
    // The one that was used last goes to the end of the map; the first one was unused for the longest time.
    this.readings.delete(key);
    this.readings.set(key, reading);
    if (this.readings.size > MOST_READINGS) {
      this.readings.delete(this.readings.keys().next().value);
    }
    const start = windowStart(k, this.block);
    return reading.read(ids.slice(start, start + this.block));
  }

  // The logits (V) for token t of a text, t > 0.
  logitsFor(ids, t, off) {
    const k = windowOf(t, this.block);
    return this.reading(ids, k, off).logits(t - 1 - windowStart(k, this.block));
  }

  // What the tokens cost that window k predicts, in nats, from the first of them on.
  score(ids, k, off) {
    const start = windowStart(k, this.block);
    const end = start + this.block;
    const reading = this.reading(ids, k, off);
    const nats = reading.nats.slice(firstPredicted(k, this.block) - start, Math.min(end, ids.length) - start);
    if (end < ids.length) {
      // The last position of a window predicts the token behind it.
      nats.push(-logProb(reading.logits(this.block - 1), ids[end]));
    }
    return nats;
  }

  // What is expected as token t, t > 0: the likeliest `count` tokens, and `actual` if it is an id, as {id, p, drawn}.
  // drawn: the probability after temperature, top-k, top-p and min-p. choices: how many tokens it leaves. nats: the cost
  // of `actual`.
  expect(ids, t, off, sampling, count, actual) {
    const logits = this.logitsFor(ids, t, off);
    const p = nextTokenProbs(logits);
    const drawn = nextTokenProbs(logits, sampling);
    const order = likeliest(p, count);
    if (actual !== null && !order.includes(actual)) {
      order.push(actual);
    }
    return {
      tokens: order.map((id) => ({ id, p: p[id], drawn: drawn[id] })),
      choices: drawn.reduce((sum, share) => sum + (share > 0 ? 1 : 0), 0),
      nats: actual === null ? null : -logProb(logits, actual),
    };
  }

  // What would be guessed as token t after the embedding and after each block: the likeliest three as {id, p}, and what
  // `actual` gets (the logit lens).
  guesses(ids, t, off, actual) {
    const k = windowOf(t, this.block);
    const stages = this.reading(ids, k, off).stages[t - 1 - windowStart(k, this.block)];
    return stages.map((x) => {
      const p = nextTokenProbs(this.model.unembed(x, 1));
      return {
        tokens: likeliest(p, 3).map((id) => ({ id, p: p[id] })),
        actual: actual === null ? null : p[actual],
      };
    });
  }

  // The weights of all heads in window k, as the viewer takes them: a character for each, row by row.
  weights(ids, k, off) {
    const { n_layer: L, n_head: H } = this.model.config;
    const rows = this.reading(ids, k, off).attention;
    const T = Math.min(this.block, ids.length - windowStart(k, this.block));
    const codes = [];
    for (let map = 0; map < L * H; map++) {
      for (let t = 0; t < T; t++) {
        for (let s = 0; s <= t; s++) {
          const weight = rows[t][map * (t + 1) + s];
          codes.push(this.levels[Math.round(Math.sqrt(weight) * (this.levels.length - 1))]);
        }
      }
    }
    return codes.join("");
  }

  // Draws the token after a text -> {id, nats}. n: how many were drawn before with this seed.
  draw(ids, off, sampling, seed, n) {
    const logits = this.logitsFor(ids, ids.length, off);
    const id = sampleFrom(nextTokenProbs(logits, sampling), uniform(seed, n));
    return { id, nats: -logProb(logits, id) };
  }
}

// The ids of the `count` largest numbers of p, the largest first.
function likeliest(p, count) {
  return Array.from(p.keys())
    .sort((a, b) => p[b] - p[a] || a - b)
    .slice(0, count);
}

// A function that answers messages {number, method, args} by post({number, result}) or post({number, error}). The first
// method is `open`; where it fails, its error answers all that follow.
function serve(post) {
  let engine = null;
  let failure = "the model was not opened";
  return ({ number, method, args }) => {
    try {
      if (method === "open") {
        const [spec, weights, levels] = args;
        engine = new Engine(new Model(spec, decodeBase64(weights)), levels);
        post({ number, result: null });
      } else if (engine === null) {
        post({ number, error: failure });
      } else {
        post({ number, result: engine[method](...args) });
      }
    } catch (error) {
      if (method === "open") {
        failure = `the model could not be opened (${error})`;
      }
      post({ number, error: String(error) });
    }
  };
}

function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) {
    bytes[i] = binary.charCodeAt(i);
  }
  return bytes.buffer;
}
