function playground(data) {
  const hosts = [...document.querySelectorAll(".chargpt-playground")];
  const host = hosts.find((one) => one.dataset.key === data.key && !one.shadowRoot);
  if (!host || !host.attachShadow) {
    return;
  }

  const tokenizer = openTokenizer(data.tokenizer);
  const unit = tokenizer.unit;
  const { n_layer: L, n_head: H, block_size: block } = data.spec.config;
  const floor = data.floor ?? 0; // nats per character
  const WRITTEN_AT_ONCE = 400; // tokens, for one press of the button
  const ALL_ON = { heads: [], attention: [], feedForward: [] };

  // ---------------------------------------------------------------- what there is

  const state = {
    text: "",
    ids: [], // of the text, up to the first character that the model does not know
    pieces: [], // its shortest parts of whole characters: {text, from, to}, from and to count tokens
    unknown: [], // where characters stand that the model does not know
    written: 0, // how many of the last tokens the model wrote
    selected: 0, // the token that the bars are about; ids.length is the next one
    off: ALL_ON,
    nats: [], // what each token costs, with what is off
    natsAllOn: [], // and with everything on
    writing: null, // while the model writes: {stopped}
  };
  const settings = { temperature: 1, topK: tokenizer.size, topP: 1, minP: 0, seed: 1337 };

  function sampling() {
    return {
      temperature: settings.temperature,
      topK: settings.topK < tokenizer.size ? settings.topK : null,
      topP: settings.topP < 1 ? settings.topP : null,
      minP: settings.minP > 0 ? settings.minP : null,
    };
  }

  function isNeutral() {
    const { temperature, topK, topP, minP } = sampling();
    return temperature === 1 && topK === null && topP === null && minP === null;
  }

  function anythingOff() {
    return Object.values(state.off).some((parts) => parts.length > 0);
  }

  // ---------------------------------------------------------------- words

  const SIGNS = { " ": "␣", "\n": "⏎", "\t": "⇥" };
  const NAMES = { " ": "space", "\n": "line end", "\t": "tab" };

  function sign(char) {
    if (SIGNS[char]) {
      return SIGNS[char];
    }
    if (/[\p{C}\p{Z}]/u.test(char)) {
      return "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    }
    return char;
  }

  function visible(text) {
    return Array.from(text, sign).join("");
  }

  function quote(text) {
    return NAMES[text] ? `${SIGNS[text]} (${NAMES[text]})` : `“${visible(text)}”`;
  }

  function percent(p) {
    if (p === 0) {
      return "0 %";
    }
    return p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`;
  }

  // The end of what stands before a token.
  function context(t) {
    const before = state.pieces.filter((piece) => piece.to <= t).slice(-12);
    const text = before.map((piece) => piece.text).join("");
    return (before.length > 0 && before[0].from > 0 ? "…" : "") + visible(text);
  }

  // A change of the loss, as in +0.12.
  function signed(change, digits) {
    const size = Math.abs(change).toFixed(digits);
    if (Number(size) === 0) {
      return size;
    }
    return `${change < 0 ? "−" : "+"}${size}`;
  }

  function plural(count, word) {
    return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  }

  // ---------------------------------------------------------------- the model, in a worker where there can be one

  function openEngine() {
    const questions = new Map(); // number -> {message, resolve, reject}
    let count = 0;
    let send = null;

    function receive({ number, result, error }) {
      const question = questions.get(number);
      questions.delete(number);
      if (error === undefined) {
        question.resolve(result);
      } else {
        question.reject(new Error(error));
      }
    }

    function computeHere() {
      const answer = computing()(receive);
      send = (message) => setTimeout(() => answer(message));
      for (const { message } of questions.values()) {
        send(message);
      }
    }

    try {
      const program = `const answer = (${computing})()((reply) => postMessage(reply));
        onmessage = (event) => answer(event.data);`;
      const address = URL.createObjectURL(new Blob([program], { type: "text/javascript" }));
      const worker = new Worker(address);
      worker.onmessage = (event) => receive(event.data);
      // Some pages allow no workers, and say so only now.
      worker.onerror = (event) => {
        event.preventDefault();
        worker.onerror = null;
        worker.terminate();
        computeHere();
      };
      send = (message) => worker.postMessage(message);
    } catch {
      computeHere();
    }

    return (method, ...args) =>
      new Promise((resolve, reject) => {
        count += 1;
        const message = { number: count, method, args };
        questions.set(count, { message, resolve, reject });
        send(message);
      });
  }

  // ---------------------------------------------------------------- what is on the page; texts go in as texts, never as HTML

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function makeButton(label, title, press) {
    const button = make("button", { type: "button", title }, label);
    button.addEventListener("click", press);
    return button;
  }

  function makeSlider(name, label, least, most, step, show) {
    const input = make("input", { type: "range", min: least, max: most, step, value: settings[name] });
    const output = make("output", {}, show(settings[name]));
    input.addEventListener("input", () => {
      settings[name] = Number(input.value);
      output.value = show(settings[name]);
      input.setAttribute("aria-valuetext", output.value);
      update();
    });
    input.setAttribute("aria-valuetext", output.value);
    return make("label", {}, make("span", {}, label), input, output);
  }

  const mirror = make("div", { class: "mirror", "aria-hidden": "true" });
  const editor = make("textarea", {
    "aria-label": "the text that the model reads",
    "aria-describedby": "hint",
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
    autocorrect: "off",
  });
  const hint = make(
    "p",
    { class: "hint", id: "hint" },
    `Type, or paste a text. The darker the ground of a ${unit}, the more it surprised the model. ` +
      `Click into the text, or move through it with the arrow keys: the bars show what the model expected there.`,
  );
  const warning = make("p", { class: "warning", role: "alert" });
  const loss = make("p", { class: "loss", "aria-live": "polite" });

  const TICKS = [0, 0.25, 1, 2, 4, 6];
  const ticks = make("div", { class: "ticks" });
  for (const nats of TICKS) {
    const label = nats === 0 ? (data.floor === null ? "0" : floor.toFixed(2)) : `+${nats}`;
    const tick = make("span", {}, nats === 6 ? "+6 and more" : label);
    tick.style.left = `${100 * intensity(nats)}%`;
    ticks.append(tick);
  }
  const legend = make(
    "div",
    { class: "legend" },
    make("div", {}, data.floor === null ? "nats" : `nats; the scale begins at the floor, ${floor.toFixed(2)}`),
    make("div", { class: "scale" }),
    ticks,
  );

  const bars = make("table", { class: "bars" });
  const readout = make("p", { class: "readout", "aria-live": "polite" });

  const writeButton = makeButton("Write", `writes ${WRITTEN_AT_ONCE} ${unit}s at the end of the text`, () => {
    if (state.writing === null) {
      write(WRITTEN_AT_ONCE);
    } else {
      state.writing.stopped = true;
    }
  });
  const stepButton = makeButton(`One ${unit}`, `writes one ${unit}`, () => write(1));
  const backButton = makeButton("Step back", `takes the last written ${unit} back`, () => stepBack(1));
  const promptButton = makeButton("Back to the prompt", "takes all back that was written", () =>
    stepBack(state.written),
  );
  const seed = make("input", { type: "number", min: 0, max: 4294967295, step: 1, value: settings.seed });
  seed.addEventListener("input", () => {
    settings.seed = Math.trunc(Number(seed.value)) >>> 0;
  });
  const speed = make("p", { class: "hint", role: "status" });
  const off = (value, rest) => (rest ? "off" : value);
  const writer = make(
    "section",
    { class: "writer", "aria-label": "writing" },
    make("h3", {}, "Let it write"),
    make("div", { class: "buttons" }, writeButton, stepButton, backButton, promptButton),
    make(
      "div",
      { class: "sliders" },
      makeSlider("temperature", "temperature", 0, 2, 0.05, (value) => value.toFixed(2)),
      makeSlider("topK", "top-k", 1, tokenizer.size, 1, (value) => off(String(value), value >= tokenizer.size)),
      makeSlider("topP", "top-p", 0.05, 1, 0.05, (value) => off(value.toFixed(2), value >= 1)),
      makeSlider("minP", "min-p", 0, 0.5, 0.01, (value) => off(value.toFixed(2), value <= 0)),
      make("label", {}, make("span", {}, "seed"), seed, make("span", {})),
    ),
    speed,
  );

  const lens = make("table", { class: "lens" });
  const switches = make("table", { class: "switches" });
  const measureButton = makeButton("Measure each", "what this text costs more with each one off, one at a time", measure);
  const allOnButton = makeButton("All on", "switches everything on", () => setOff(ALL_ON));
  const viewer = make("div", { class: "viewer" });

  function section(title, name, ...children) {
    return make("section", { class: name, "aria-label": title.toLowerCase() }, make("h3", {}, title), ...children);
  }

  const page = make(
    "div",
    { class: "playground", role: "group", "aria-label": "the model, live", "data-unit": unit },
    make(
      "h2",
      {},
      `A GPT, live: ${data.size.toLocaleString("en")} parameters, ${plural(L, "layer")} of ${plural(H, "head")}, ` +
        `a window of ${plural(block, unit)}`,
    ),
    section("What surprises it", "reading", make("div", { class: "editor" }, mirror, editor), warning, loss, legend, hint),
    section("What it expected", "expected", bars, readout),
    writer,
    section("Its guess after each block", "guesses", make("div", { class: "table", tabindex: 0 }, lens)),
    section(
      "Switch parts off",
      "parts",
      make("div", { class: "buttons" }, measureButton, allOnButton),
      make("div", { class: "table" }, switches),
      make("p", { class: "hint" }, "Press a head, or a whole layer's attention or feed-forward. The text, the loss and the bars follow."),
    ),
    section("Where each head looks", "looking", viewer),
  );

  // ---------------------------------------------------------------- the text and its colours

  // How strong the colour of a cost above the floor is, from 0 to 1.
  function intensity(excess) {
    return Math.sqrt(Math.min(1, Math.max(0, excess) / 6));
  }

  function tint(element, strength) {
    element.style.backgroundColor = strength > 0 ? `rgb(196 88 0 / ${(0.8 * strength).toFixed(3)})` : "";
  }

  // What a piece costs, and null where a part of it is not known yet or is not predicted.
  function costOf(piece, nats) {
    let sum = 0;
    for (let t = piece.from; t < piece.to; t++) {
      if (nats[t] === null || nats[t] === undefined) {
        return null;
      }
      sum += nats[t];
    }
    return sum;
  }

  function setText(text, written) {
    state.text = text;
    const known = tokenizer.unknown(text);
    state.unknown = known;
    const readable = known.length === 0 ? text : Array.from(text).slice(0, known[0]).join("");
    state.ids = tokenizer.encode(readable);
    state.pieces = tokenizer.pieces(state.ids);
    state.written = written;
    forgetCosts(0);
  }

  // The costs from token t on are not known any more.
  function forgetCosts(t) {
    state.nats = state.nats.slice(0, t);
    state.natsAllOn = state.natsAllOn.slice(0, t);
  }

  const drawn = []; // the pieces' texts that the mirror shows
  let tail = null; // what stands behind the pieces: what cannot be read, and the place of the next token

  // The mirror lies behind the letters of the editor and gives them their ground. Pieces that stay keep their elements.
  function drawMirror() {
    let same = 0;
    while (same < drawn.length && same < state.pieces.length && drawn[same] === state.pieces[same].text) {
      same += 1;
    }
    drawn.length = same;
    while (mirror.childNodes.length > same) {
      mirror.lastChild.remove();
    }
    for (const piece of state.pieces.slice(same)) {
      drawn.push(piece.text);
      mirror.append(make("span", {}, piece.text));
    }
    const length = state.pieces.reduce((sum, piece) => sum + piece.text.length, 0);
    const rest = state.text.slice(length);
    tail = make("span", { class: rest === "" ? "next" : "unread" });
    if (rest === "") {
      tail.append("\u200b");
    } else {
      const [first, ...others] = Array.from(rest);
      tail.append(make("span", { class: "unknown" }, first), others.join(""), "\u200b");
    }
    mirror.append(tail);
    drawColours();
  }

  function drawColours() {
    state.pieces.forEach((piece, i) => {
      const cost = costOf(piece, state.nats);
      const span = mirror.childNodes[i];
      const excess = cost === null ? 0 : cost - floor * Array.from(piece.text).length;
      tint(span, cost === null ? 0 : intensity(excess));
      span.classList.toggle("selected", piece.from <= state.selected && state.selected < piece.to);
    });
    tail.classList.toggle("selected", state.unknown.length === 0 && state.selected === state.ids.length);
  }

  function drawWarning() {
    if (state.unknown.length === 0) {
      warning.textContent = "";
      return;
    }
    const characters = Array.from(state.text);
    const kinds = [...new Set(state.unknown.map((place) => characters[place]))];
    const shown = kinds.slice(0, 5).map(quote).join(", ");
    const more = kinds.length > 5 ? ` and ${kinds.length - 5} more` : "";
    warning.replaceChildren(
      `The model does not know ${shown}${more}: its alphabet has ${tokenizer.size} characters. ` +
        `It reads the text up to position ${state.unknown[0]}. `,
      makeButton("Take them out", "removes these characters from the text", () => {
        const unknown = new Set(state.unknown);
        edit(characters.filter((_, place) => !unknown.has(place)).join(""));
        editor.value = state.text;
        editor.focus();
      }),
    );
  }

  function mean(nats) {
    const known = nats.filter((cost) => cost !== null && cost !== undefined);
    return known.length === 0 ? null : known.reduce((sum, cost) => sum + cost, 0) / known.length;
  }

  function drawLoss() {
    const cost = mean(state.nats);
    const count = state.nats.filter((one) => one !== null && one !== undefined).length;
    if (cost === null) {
      const first = unit === "character" ? "Nothing stands before the first character" : "Nothing stands before the first token";
      loss.textContent = state.ids.length === 0 ? "The text is empty." : `${first}, so the model does not predict it.`;
      return;
    }
    let said = `${plural(count, unit)} predicted: ${cost.toFixed(3)} nats per ${unit}`;
    const allOn = mean(state.natsAllOn);
    if (anythingOff() && allOn !== null && state.natsAllOn.length === state.nats.length) {
      said += `; ${allOn.toFixed(3)} with everything on (${signed(cost - allOn, 3)})`;
    }
    if (data.floor !== null && unit === "character") {
      said += `; the floor is ${floor.toFixed(3)}`;
    }
    loss.textContent = `${said}.`;
  }

  // ---------------------------------------------------------------- bars, and guesses after each block

  function bar(p, kind) {
    const inner = make("div", { class: `bar ${kind}` });
    inner.style.width = `${(100 * p).toFixed(2)}%`;
    return inner;
  }

  function drawExpected(expected, t) {
    const neutral = isNeutral();
    const actual = t < state.ids.length ? state.ids[t] : null;
    const head = [make("th", { scope: "col" }, unit), make("th", { scope: "col" }, "probability")];
    if (!neutral) {
      head.push(make("th", { scope: "col" }, "drawn with"));
    }
    const rows = expected.tokens.map(({ id, p, drawn }) => {
      const cells = [
        make("th", { scope: "row" }, quote(tokenizer.text(id))),
        make("td", {}, make("div", { class: "track" }, bar(p, "model"), neutral ? "" : bar(drawn, "drawn")), percent(p)),
      ];
      if (!neutral) {
        cells.push(make("td", {}, percent(drawn)));
      }
      const row = make("tr", {}, ...cells);
      if (id === actual) {
        row.className = "actual";
        cells[0].append(make("span", { class: "note" }, " stands here"));
      }
      return row;
    });
    bars.replaceChildren(
      make("caption", {}, `After “${context(t)}”`),
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...rows),
    );
    const [best] = expected.tokens;
    let said = `Most likely: ${quote(tokenizer.text(best.id))}, ${percent(best.p)}.`;
    if (actual !== null && state.nats[t] !== undefined) {
      const p = expected.tokens.find(({ id }) => id === actual).p;
      said = `${quote(tokenizer.text(actual))} had ${percent(p)}, and cost ${state.nats[t].toFixed(2)} nats. ${said}`;
    }
    if (!neutral) {
      said += ` With these settings ${plural(expected.kept, unit)} of ${tokenizer.size} can be drawn.`;
    }
    readout.textContent = said;
  }

  function drawLens(guesses, t) {
    const rows = guesses.map(({ tokens, actual }, stage) => {
      const cells = tokens.map(({ id, p }) => {
        const cell = make("td", { class: t < state.ids.length && id === state.ids[t] ? "actual" : "" }, make("b", {}, visible(tokenizer.text(id))), ` ${percent(p)}`);
        cell.style.setProperty("--p", p.toFixed(3));
        return cell;
      });
      const name = stage === 0 ? "embedding" : `block ${stage - 1}`;
      const last = actual === null ? [] : [make("td", {}, percent(actual))];
      return make("tr", {}, make("th", { scope: "row" }, name), ...cells, ...last);
    });
    const titles = ["after", "first guess", "second", "third"];
    if (t < state.ids.length) {
      titles.push(quote(tokenizer.text(state.ids[t])));
    }
    lens.replaceChildren(
      make("caption", {}, `The next ${unit} after “${context(t)}”, read from the residual stream`),
      make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
      make("tbody", {}, ...rows),
    );
  }

  function drawNothingBefore() {
    const said = state.ids.length === 0 ? "Type something." : `Nothing stands before the first ${unit}: it is not predicted.`;
    bars.replaceChildren(make("caption", {}, said));
    lens.replaceChildren(make("caption", {}, said));
    readout.textContent = "";
  }

  // ---------------------------------------------------------------- switches

  const switchButtons = []; // {kind, part, button}

  function addSwitch(kind, part, name) {
    const button = make("button", { type: "button", role: "switch", "aria-checked": "true", "aria-label": name, title: name });
    button.addEventListener("click", () => {
      const parts = state.off[kind];
      const others = parts.includes(part) ? parts.filter((one) => one !== part) : [...parts, part].sort();
      setOff({ ...state.off, [kind]: others });
    });
    switchButtons.push({ kind, part, button, worth: null });
    return make("td", {}, button);
  }

  function makeSwitches() {
    const titles = ["layer", ...Array.from({ length: H }, (_, head) => `head ${head}`), "all heads", "feed-forward"];
    const rows = [];
    for (let layer = 0; layer < L; layer++) {
      const cells = [];
      for (let head = 0; head < H; head++) {
        cells.push(addSwitch("heads", `${layer}.${head}`, `layer ${layer}, head ${head}`));
      }
      cells.push(addSwitch("attention", layer, `layer ${layer}, all of its attention`));
      cells.push(addSwitch("feedForward", layer, `layer ${layer}, feed-forward`));
      rows.push(make("tr", {}, make("th", { scope: "row" }, String(layer)), ...cells));
    }
    switches.append(
      make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
      make("tbody", {}, ...rows),
    );
  }

  function drawSwitches() {
    for (const { kind, part, button, worth } of switchButtons) {
      const isOn = !state.off[kind].includes(part);
      button.setAttribute("aria-checked", String(isOn));
      const isMeasured = isOn && worth !== null;
      button.textContent = isOn ? "on" : "off";
      if (isMeasured) {
        button.textContent = signed(worth, 2);
      }
      tint(button, isMeasured ? intensity(worth) : 0);
    }
    allOnButton.disabled = !anythingOff();
  }

  function setOff(off) {
    state.off = off;
    forgetCosts(0);
    forgetWorth();
    update();
  }

  function forgetWorth() {
    for (const one of switchButtons) {
      one.worth = null;
    }
    drawSwitches();
  }

  // What the text costs more with one part off, besides those that are off already.
  async function measure() {
    const ids = state.ids;
    const off = state.off;
    if (ids.length < 2) {
      return;
    }
    measureButton.disabled = true;
    const before = mean(await scoreAll(ids, off));
    for (const one of switchButtons) {
      if (off[one.kind].includes(one.part)) {
        continue;
      }
      const nats = await scoreAll(ids, { ...off, [one.kind]: [...off[one.kind], one.part] });
      if (state.ids !== ids || state.off !== off) {
        break; // the text or the switches have changed meanwhile
      }
      one.worth = mean(nats) - before;
      drawSwitches();
    }
    measureButton.disabled = false;
  }

  // Every window of a text, without a look at what was computed before.
  async function scoreAll(ids, off) {
    const nats = [];
    for (let k = 0; k <= lastWindow(ids); k++) {
      nats.push(...(await ask("score", ids, k, off)).nats);
    }
    return nats;
  }

  // ---------------------------------------------------------------- the heads' viewer

  const viewed = { key: null, set: null, choice: 0, start: 0 };
  let viewerTimer = null;

  function scheduleViewer() {
    clearTimeout(viewerTimer);
    viewerTimer = setTimeout(drawViewer, 250);
  }

  async function drawViewer() {
    if (state.ids.length === 0) {
      viewed.key = null;
      viewer.replaceChildren();
      return;
    }
    const ids = state.ids;
    const off = state.off;
    const asking = Math.max(0, state.selected - 1); // the position from which the selected token is predicted
    const k = windowOf(Math.max(1, state.selected), block);
    const start = windowStart(k, block);
    const window = ids.slice(start, start + block);
    const key = JSON.stringify([window, k, off]);
    if (key !== viewed.key) {
      const weights = await ask("weights", ids, k, off);
      if (state.ids !== ids || state.off !== off) {
        return; // a later call draws
      }
      const place = make("div", { class: "chargpt-attention" });
      viewer.replaceChildren(place);
      const labels = window.map((id) => tokenizer.text(id));
      viewed.set = attend({
        host: place,
        style: data.viewerStyle,
        text: unit === "character" ? labels.join("") : labels,
        layers: Array.from({ length: L }, (_, layer) => layer),
        heads: Array.from({ length: H }, (_, head) => head),
        levels: data.levels,
        weights,
        choice: viewed.choice,
        onChoice: (choice) => {
          viewed.choice = choice;
        },
      });
      viewed.key = key;
      viewed.start = start;
    }
    viewed.set({ position: asking - viewed.start });
  }

  // ---------------------------------------------------------------- keeping all up to date

  function lastWindow(ids) {
    return windowOf(Math.max(1, ids.length - 1), block);
  }

  let wanted = false;
  let busy = false;

  // Computes and draws what has changed. Asked while it runs, it begins again from what is new.
  async function update() {
    wanted = true;
    drawMirror();
    drawLoss();
    drawButtons();
    if (busy) {
      return;
    }
    busy = true;
    try {
      while (wanted) {
        wanted = false;
        await computeExpected();
        await computeCosts();
      }
      scheduleViewer();
    } catch (error) {
      warning.textContent = `The model could not be computed: ${error.message}`;
    }
    busy = false;
  }

  async function computeCosts() {
    await fillCosts(state.nats, state.off);
    if (!wanted && anythingOff()) {
      await fillCosts(state.natsAllOn, ALL_ON);
    }
  }

  // Asks for the windows whose costs are not known, one after the other; ends where something newer is wanted.
  async function fillCosts(nats, off) {
    const ids = state.ids;
    for (let k = 0; k <= lastWindow(ids); k++) {
      const first = k === 0 ? 0 : windowStart(k - 1, block) + block + 1;
      const end = Math.min(windowStart(k, block) + block + 1, ids.length);
      if (nats.length >= end) {
        continue;
      }
      const scored = await ask("score", ids, k, off);
      if (wanted || state.ids !== ids) {
        return;
      }
      nats.length = first;
      nats.push(...scored.nats);
      drawColours();
      drawLoss();
    }
  }

  async function computeExpected() {
    const t = state.selected;
    if (t === 0) {
      drawNothingBefore();
      return;
    }
    const actual = t < state.ids.length ? state.ids[t] : null;
    const expected = await ask("expect", state.ids, t, state.off, sampling(), 8, actual);
    const guesses = await ask("guesses", state.ids, t, state.off, actual);
    if (!wanted) {
      drawExpected(expected, t);
      drawLens(guesses, t);
    }
  }

  function drawButtons() {
    const readable = state.unknown.length === 0;
    const writing = state.writing !== null;
    writeButton.textContent = writing ? "Stop" : "Write";
    writeButton.disabled = !readable;
    stepButton.disabled = !readable || writing;
    backButton.disabled = state.written === 0 || writing;
    promptButton.disabled = state.written === 0 || writing;
  }

  // ---------------------------------------------------------------- typing

  function edit(text) {
    state.writing = null;
    const old = state.ids;
    const nats = state.nats;
    const natsAllOn = state.natsAllOn;
    setText(text, 0);
    // What stands before the first token that has changed costs what it did.
    let same = 0;
    while (same < old.length && same < state.ids.length && old[same] === state.ids[same]) {
      same += 1;
    }
    state.nats = nats.slice(0, same);
    state.natsAllOn = natsAllOn.slice(0, same);
    forgetWorth();
    drawWarning();
    readCaret();
    update();
  }

  // The token behind the caret is selected.
  function readCaret() {
    let end = 0;
    state.selected = state.ids.length;
    for (const piece of state.pieces) {
      end += piece.text.length;
      if (editor.selectionStart < end) {
        state.selected = piece.from;
        return;
      }
    }
  }

  function followCaret() {
    const before = state.selected;
    if (state.writing === null) {
      readCaret();
    }
    if (state.selected !== before) {
      update();
    }
  }

  let editTimer = null;
  editor.addEventListener("input", () => {
    state.writing = null;
    // Some ways to put in a text are an event for each of its lines.
    clearTimeout(editTimer);
    editTimer = setTimeout(() => edit(editor.value));
  });
  for (const event of ["keyup", "click", "select", "focus"]) {
    editor.addEventListener(event, followCaret);
  }
  for (const event of ["keydown", "keyup", "keypress"]) {
    // A notebook would take the keys for commands of its own.
    page.addEventListener(event, (pressed) => {
      if (pressed.key === "Escape" && state.writing !== null) {
        state.writing.stopped = true;
      }
      pressed.stopPropagation();
    });
  }

  // ---------------------------------------------------------------- writing

  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function show(text) {
    state.text = text;
    editor.value = text;
    state.selected = state.ids.length;
    drawMirror();
    mirror.parentElement.scrollTop = mirror.parentElement.scrollHeight;
  }

  // Appends a token and what it cost. Only the last piece can change: its bytes may be a part of a character.
  function appendToken(id, nats) {
    state.ids = [...state.ids, id];
    const last = state.pieces.pop();
    const from = last === undefined ? 0 : last.from;
    for (const piece of tokenizer.pieces(state.ids.slice(from))) {
      state.pieces.push({ text: piece.text, from: from + piece.from, to: from + piece.to });
    }
    state.nats.length = state.ids.length - 1;
    state.nats.push(nats);
    state.natsAllOn.length = Math.min(state.natsAllOn.length, state.ids.length - 1);
    state.written += 1;
  }

  async function write(count) {
    if (state.writing !== null) {
      return;
    }
    if (state.ids.length === 0) {
      // The model needs something to begin with.
      edit(tokenizer.unknown("\n").length === 0 ? "\n" : tokenizer.text(0));
      editor.value = state.text;
    }
    const mine = { stopped: false };
    state.writing = mine;
    speed.textContent = "";
    drawButtons();
    forgetWorth();
    const begin = performance.now();
    let painted = begin;
    let made = 0;
    try {
      while (!mine.stopped && made < count) {
        const { id, nats } = await ask("draw", state.ids, state.off, sampling(), settings.seed, state.written);
        if (state.writing !== mine) {
          return; // somebody has typed
        }
        appendToken(id, nats);
        made += 1;
        // A screen shows sixty pictures a second. Who asked for little motion gets a line at a time.
        const now = performance.now();
        const due = calm.matches ? tokenizer.text(id).includes("\n") : now - painted > 16;
        if (due) {
          painted = now;
          show(state.pieces.map((piece) => piece.text).join(""));
        }
      }
    } catch (error) {
      warning.textContent = `The model could not be computed: ${error.message}`;
    }
    state.writing = null;
    show(state.pieces.map((piece) => piece.text).join(""));
    if (made > 1) {
      const seconds = (performance.now() - begin) / 1000;
      speed.textContent = `${plural(made, unit)} written, ${Math.round(made / seconds).toLocaleString("en")} a second.`;
    }
    update();
  }

  function stepBack(count) {
    state.ids = state.ids.slice(0, state.ids.length - count);
    state.pieces = tokenizer.pieces(state.ids);
    state.written -= count;
    forgetCosts(state.ids.length);
    forgetWorth();
    speed.textContent = "";
    show(state.pieces.map((piece) => piece.text).join(""));
    update();
  }

  // ---------------------------------------------------------------- only now is the static picture replaced

  const ask = openEngine();
  makeSwitches();
  drawSwitches();
  setText(data.text, 0);
  editor.value = data.text;
  state.selected = state.ids.length;
  host.dataset.alive = "";
  host.attachShadow({ mode: "open" }).append(make("style", {}, data.style), page);
  drawWarning();
  ask("open", data.spec, data.weights, data.levels).catch((error) => {
    warning.textContent = `The model could not be opened: ${error.message}`;
  });
  update();
}
