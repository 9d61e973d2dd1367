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
    // What each token costs, with what is off, and with everything on. They may be shorter than ids: then the rest is not
    // known yet.
    nats: [],
    natsAllOn: [],
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

  function visible(text) {
    return Array.from(text, sign).join("");
  }

  function quote(text) {
    return WORDS[text] ?? `“${visible(text)}”`;
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

  // ---------------------------------------------------------------- what is on the page

  // A button that cannot be pressed now stays where the keyboard is; a disabled one would lose it.
  function setEnabled(button, enabled) {
    button.setAttribute("aria-disabled", String(!enabled));
  }

  function makeButton(label, title, press) {
    const button = make("button", { type: "button", title }, label);
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") !== "true") {
        press();
      }
    });
    return button;
  }

  function makeSlider(name, label, title, [min, max, step], show) {
    const input = make("input", { type: "range", min, max, step, value: settings[name] });
    const output = make("output", {}, show(settings[name]));
    input.addEventListener("input", () => {
      settings[name] = Number(input.value);
      output.value = show(settings[name]);
      input.setAttribute("aria-valuetext", output.value);
      update();
    });
    input.setAttribute("aria-valuetext", output.value);
    return make("label", { title }, make("span", {}, label), input, output);
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
    `Type, or paste a text. The stronger the colour behind a ${unit}, the more it surprised the model. ` +
      `Put the caret before a ${unit}, by a click or with the arrow keys: the bars show what the model expected there.`,
  );
  const failure = make("p", { class: "warning", role: "alert" });
  const warning = make("p", { class: "warning", role: "alert" });
  const takeOutButton = makeButton("Take them out", "removes these characters from the text", takeOut);
  const loss = make("p", { class: "loss", "aria-live": "polite" });
  const scored = make("p", { class: "hint" });

  const ticks = make("div", { class: "ticks" });
  for (const nats of [0, 0.25, 1, 2, 4, 6]) {
    const tick = make("span", {}, nats === 6 ? "6 and more" : String(nats));
    tick.style.left = `${100 * intensity(nats)}%`;
    ticks.append(tick);
  }

  function legendTitle() {
    if (data.floor === null) {
      return "surprise in nats (the colour is its square root)";
    }
    const each = unit === "token" ? " for each character" : "";
    return `surprise in nats above the floor, ${floor.toFixed(2)}${each} (the colour is its square root)`;
  }
  const legend = make("div", { class: "legend" }, make("div", {}, legendTitle()), make("div", { class: "scale" }), ticks);

  const bars = make("table", { class: "bars" });
  const readout = make("p", { class: "readout", "aria-live": "polite" });

  const writeButton = makeButton("Write", `writes ${WRITTEN_AT_ONCE} ${unit}s at the end of the text`, () => {
    if (state.writing === null) {
      write(WRITTEN_AT_ONCE);
    } else if (performance.now() - state.writing.begin > 300) {
      // The second click of a double click is not meant to stop.
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
  seed.addEventListener("change", () => {
    seed.value = settings.seed; // what is used, where something else was typed
  });
  const speed = make("p", { class: "hint", role: "status" });
  const orOff = (shown, isOff) => (isOff ? "off" : shown);
  const writer = make(
    "section",
    { class: "writer", "aria-label": "writing" },
    make("h3", {}, "Let it write"),
    make("div", { class: "buttons" }, writeButton, stepButton, backButton, promptButton),
    make(
      "p",
      { class: "hint" },
      "After Back to the prompt, the same settings and the same seed write the same text. The key Escape stops.",
    ),
    make(
      "div",
      { class: "sliders" },
      makeSlider(
        "temperature",
        "temperature",
        "divides the logits: below 1, what is likely becomes likelier; at 0 the likeliest is taken",
        [0, 2, 0.05],
        (value) => value.toFixed(2),
      ),
      makeSlider("topK", "top-k", `draws from the k likeliest ${unit}s only`, [1, tokenizer.size, 1], (value) =>
        orOff(String(value), value >= tokenizer.size),
      ),
      makeSlider(
        "topP",
        "top-p",
        `draws from the likeliest ${unit}s that together have this probability`,
        [0.05, 1, 0.05],
        (value) => orOff(value.toFixed(2), value >= 1),
      ),
      makeSlider(
        "minP",
        "min-p",
        `leaves out what has less than this share of the likeliest ${unit}'s probability`,
        [0, 0.5, 0.01],
        (value) => orOff(value.toFixed(2), value <= 0),
      ),
      make("label", { title: "another seed draws other random numbers" }, make("span", {}, "seed"), seed, make("span", {})),
    ),
    speed,
  );

  const lens = make("table", { class: "lens" });
  const switches = make("table", { class: "switches" });
  const measureButton = makeButton("Measure each", "what this text costs more with each part off, one at a time", () => {
    if (measuring === null) {
      measure();
    } else {
      forgetIncreases();
    }
  });
  const allOnButton = makeButton("All on", "switches everything on", () => setOff(ALL_ON));
  const viewerTitle = make("p", { class: "hint" });
  const viewer = make("div", { class: "maps" });

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
    section(
      "What surprises it",
      "reading",
      make("div", { class: "editor" }, mirror, editor),
      failure,
      warning,
      takeOutButton,
      loss,
      scored,
      legend,
      hint,
    ),
    section("What it expected", "expected", bars, readout),
    writer,
    section("Its guess after each block", "guesses", scrollable("guesses after each block", lens)),
    section(
      "Switch parts off",
      "parts",
      make("div", { class: "buttons" }, measureButton, allOnButton),
      scrollable("switches", switches),
      make(
        "p",
        { class: "hint" },
        "Press a button to switch that part off. Colours, loss and bars then show the model without it. " +
          `A number says by how many nats per ${unit} the loss of this text grows without that part.`,
      ),
    ),
    section("Where each head looks", "looking", viewerTitle, viewer),
  );

  // What may be wider than the page can be scrolled, by the keyboard, too.
  function scrollable(name, table) {
    return make("div", { class: "table", role: "region", tabindex: 0, "aria-label": name }, table);
  }

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

  function setText(text) {
    state.text = text;
    state.unknown = tokenizer.unknown(text);
    let readable = text;
    if (state.unknown.length > 0) {
      readable = Array.from(text).slice(0, state.unknown[0]).join("");
    }
    state.ids = tokenizer.encode(readable);
    state.pieces = tokenizer.pieces(state.ids);
    state.written = 0;
    forgetCosts(0);
  }

  // The costs from token t on are not known any more.
  function forgetCosts(t) {
    state.nats = state.nats.slice(0, t);
    state.natsAllOn = state.natsAllOn.slice(0, t);
  }

  const drawn = []; // the pieces' texts that the mirror shows
  let rest = null; // what stands behind the pieces: what cannot be read, or the place of the next token

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
    const readable = state.pieces.reduce((sum, piece) => sum + piece.text.length, 0);
    const unread = Array.from(state.text.slice(readable));
    if (unread.length === 0) {
      rest = make("span", { class: "next" }, "\u200b");
    } else {
      const unknown = make("span", { class: "unknown" }, unread[0]);
      rest = make("span", { class: "unread" }, unknown, unread.slice(1).join(""), "\u200b");
    }
    mirror.append(rest);
    drawColours(0, state.ids.length);
    drawSelection();
  }

  // The ground of the pieces that tokens from `first` to before `end` belong to.
  function drawColours(first, end) {
    state.pieces.forEach((piece, i) => {
      if (piece.to <= first || piece.from >= end) {
        return;
      }
      const cost = costOf(piece, state.nats);
      const excess = cost === null ? 0 : cost - floor * Array.from(piece.text).length;
      tint(mirror.childNodes[i], intensity(excess));
    });
  }

  function drawSelection() {
    mirror.querySelector(".selected")?.classList.remove("selected");
    const place = state.pieces.findIndex((piece) => piece.from <= state.selected && state.selected < piece.to);
    if (place >= 0) {
      mirror.childNodes[place].classList.add("selected");
    } else if (state.unknown.length === 0) {
      rest.classList.add("selected");
    }
  }

  function drawWarning() {
    takeOutButton.hidden = state.unknown.length === 0;
    if (state.unknown.length === 0) {
      warning.textContent = "";
      return;
    }
    const characters = Array.from(state.text);
    const kinds = [...new Set(state.unknown.map((place) => characters[place]))];
    const shown = kinds.slice(0, 5).map(quote).join(", ");
    const more = kinds.length > 5 ? ` and ${kinds.length - 5} more` : "";
    warning.textContent =
      `The model does not know ${shown}${more}: its alphabet has ${tokenizer.size} characters. ` +
      `It reads only the ${plural(state.unknown[0], "character")} before ${quote(characters[state.unknown[0]])}.`;
  }

  function takeOut() {
    const unknown = new Set(state.unknown);
    const characters = Array.from(state.text).filter((_, place) => !unknown.has(place));
    editor.value = characters.join("");
    editor.focus();
    edit(editor.value);
  }

  function mean(nats) {
    const known = nats.filter((cost) => cost !== null);
    return known.reduce((sum, cost) => sum + cost, 0) / known.length;
  }

  // The loss is said once all of the text is scored.
  function drawLoss() {
    const count = state.ids.length;
    if (count < 2) {
      loss.textContent = `Nothing stands before the first ${unit}, so the model does not predict it.`;
      if (state.text === "") {
        loss.textContent = "The text is empty.";
      }
      scored.textContent = "";
      return;
    }
    const isScored = state.nats.length === count && (!anythingOff() || state.natsAllOn.length === count);
    loss.classList.toggle("old", !isScored);
    scored.textContent = isScored ? "" : `Reading: ${state.nats.length.toLocaleString("en")} of ${plural(count, unit)}.`;
    if (!isScored) {
      return;
    }
    const cost = mean(state.nats);
    let said = `${plural(count - 1, unit)} predicted: ${cost.toFixed(3)} nats per ${unit}`;
    if (anythingOff()) {
      const allOn = mean(state.natsAllOn);
      said += `; ${allOn.toFixed(3)} with everything on (${signed(cost - allOn, 3)})`;
    }
    if (data.floor !== null && unit === "character") {
      said += `; the floor, a mean over much text, is ${floor.toFixed(3)}`;
    }
    loss.textContent = `${said}.`;
  }

  // ---------------------------------------------------------------- bars, and guesses after each block

  function bar(p, kind) {
    const inner = make("div", { class: `bar ${kind}` });
    inner.style.width = `${(100 * p).toFixed(2)}%`;
    return inner;
  }

  // actual: the id that stands there, or null.
  function drawExpected({ tokens, choices, nats }, t, actual) {
    const neutral = isNeutral();
    const head = [make("th", { scope: "col" }, unit), make("th", { scope: "col", class: "model" }, "probability")];
    if (!neutral) {
      head.push(make("th", { scope: "col", class: "drawn" }, "when writing"));
    }
    const rows = tokens.map(({ id, p, drawn }) => {
      const name = make("th", { scope: "row" }, quote(tokenizer.text(id)));
      const track = make("div", { class: "track" }, bar(p, "model"));
      const row = make("tr", {}, name, make("td", {}, track, percent(p)));
      if (!neutral) {
        track.append(bar(drawn, "drawn"));
        row.append(make("td", {}, percent(drawn)));
      }
      if (id === actual) {
        row.className = "actual";
        name.append(make("span", { class: "note" }, " stands here"));
      }
      return row;
    });
    bars.replaceChildren(
      make("caption", {}, `After “${context(t)}”`),
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...rows),
    );
    let said = `Most likely: ${quote(tokenizer.text(tokens[0].id))}, ${percent(tokens[0].p)}.`;
    if (actual !== null) {
      const { p } = tokens.find(({ id }) => id === actual);
      said = `${quote(tokenizer.text(actual))} had ${percent(p)}, and cost ${nats.toFixed(2)} nats. ${said}`;
    }
    if (!neutral) {
      said += ` With the settings for writing, ${plural(choices, unit)} of ${tokenizer.size} can be drawn.`;
    }
    readout.textContent = said;
  }

  function drawLens(guesses, t, actual) {
    const titles = ["after", "first guess", "second", "third"];
    if (actual !== null) {
      titles.push(`${quote(tokenizer.text(actual))} gets`);
    }
    const rows = guesses.map((guess, stage) => {
      const name = stage === 0 ? "embedding" : `block ${stage - 1}`;
      const row = make("tr", {}, make("th", { scope: "row" }, name));
      for (const { id, p } of guess.tokens) {
        const cell = make("td", {}, make("b", {}, visible(tokenizer.text(id))), ` ${percent(p)}`);
        cell.style.setProperty("--p", p.toFixed(3));
        cell.classList.toggle("actual", id === actual);
        row.append(cell);
      }
      if (actual !== null) {
        row.append(make("td", {}, percent(guess.actual)));
      }
      return row;
    });
    lens.replaceChildren(
      make(
        "caption",
        {},
        `The next ${unit} after “${context(t)}”, if the model ended there (the logit lens)` +
          (actual === null ? "" : `; framed is what stands there`),
      ),
      make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
      make("tbody", {}, ...rows),
    );
  }

  function drawNothingBefore() {
    let said = `Nothing stands before the first ${unit}: it is not predicted.`;
    if (state.text === "") {
      said = "Type something.";
    }
    bars.replaceChildren(make("caption", {}, said));
    lens.replaceChildren(make("caption", {}, said));
    readout.textContent = "";
  }

  // ---------------------------------------------------------------- switches

  const switchButtons = []; // {kind, part, name, button, increase}; increase: of the loss without this part, or null

  function addSwitch(kind, part, name) {
    const button = make("button", { type: "button", role: "switch", title: name });
    button.addEventListener("click", () => {
      const parts = state.off[kind];
      const others = parts.includes(part) ? parts.filter((one) => one !== part) : [...parts, part].sort();
      setOff({ ...state.off, [kind]: others });
    });
    switchButtons.push({ kind, part, name, button, increase: null });
    return make("td", {}, button);
  }

  function makeSwitches() {
    const titles = ["layer", "feed-forward", "all heads", ...Array.from({ length: H }, (_, head) => `head ${head}`)];
    const rows = [];
    for (let layer = 0; layer < L; layer++) {
      const cells = [
        addSwitch("feedForward", layer, `layer ${layer}, feed-forward`),
        addSwitch("attention", layer, `layer ${layer}, all heads`),
      ];
      for (let head = 0; head < H; head++) {
        cells.push(addSwitch("heads", `${layer}.${head}`, `layer ${layer}, head ${head}`));
      }
      rows.push(make("tr", {}, make("th", { scope: "row" }, String(layer)), ...cells));
    }
    switches.append(
      make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
      make("tbody", {}, ...rows),
    );
  }

  function drawSwitches() {
    for (const { kind, part, name, button, increase } of switchButtons) {
      const isOn = !state.off[kind].includes(part);
      const isMeasured = isOn && increase !== null;
      const isWithout = kind === "heads" && state.off.attention.includes(Number(part.split(".")[0]));
      button.setAttribute("aria-checked", String(isOn));
      button.textContent = isOn ? "on" : "off";
      button.setAttribute("aria-label", name);
      button.classList.toggle("without", isWithout);
      if (isWithout) {
        button.textContent = "–";
        button.setAttribute("aria-label", `${name}: off with its layer`);
      } else if (isMeasured) {
        button.textContent = signed(increase, 2);
        button.setAttribute("aria-label", `${name}: ${signed(increase, 2)} nats without it`);
      }
      const isShown = isMeasured && !isWithout && increase >= 0.005;
      tint(button, isShown ? intensity(increase) : 0);
    }
    setEnabled(allOnButton, anythingOff());
  }

  function setOff(off) {
    state.off = off;
    forgetCosts(0);
    forgetIncreases();
    update();
  }

  // Also ends a measurement that is under way.
  function forgetIncreases() {
    measuring = null;
    measureButton.textContent = "Measure each";
    for (const one of switchButtons) {
      one.increase = null;
    }
    drawSwitches();
  }

  let measuring = null; // the measurement that is under way

  // What the text costs more with one part off, besides those that are off already.
  async function measure() {
    const { ids, off } = state;
    const mine = {};
    forgetIncreases();
    measuring = mine;
    const parts = switchButtons.filter(({ kind, part, button }) => {
      return !off[kind].includes(part) && !button.classList.contains("without");
    });
    try {
      const before = await lossOf(ids, off, mine);
      for (const [n, one] of parts.entries()) {
        if (measuring === mine) {
          measureButton.textContent = `Stop (${n + 1} of ${parts.length})`;
        }
        const after = await lossOf(ids, { ...off, [one.kind]: [...off[one.kind], one.part] }, mine);
        if (measuring !== mine) {
          return;
        }
        one.increase = after - before;
        drawSwitches();
      }
    } catch (error) {
      showFailure(error);
    }
    measuring = null;
    measureButton.textContent = "Measure each";
  }

  // The loss of a whole text, window by window; ends where its measurement has ended.
  async function lossOf(ids, off, mine) {
    const nats = [];
    for (let k = 0; k <= lastWindow(ids) && measuring === mine; k++) {
      nats.push(...(await ask("score", ids, k, off)));
    }
    return mean(nats);
  }

  // ---------------------------------------------------------------- the heads' viewer

  const viewed = { key: null, set: null, head: { row: 0, column: 0 }, start: 0 };

  async function drawViewer() {
    if (state.ids.length === 0) {
      viewed.key = null;
      viewer.replaceChildren();
      viewerTitle.textContent = "";
      return;
    }
    const { ids, off, selected } = state;
    const k = windowOf(Math.max(1, selected), block);
    const start = windowStart(k, block);
    const window = ids.slice(start, start + block);
    const key = JSON.stringify([window, k, off]);
    if (key !== viewed.key) {
      const weights = await ask("weights", ids, k, off);
      if (wanted) {
        return;
      }
      const place = make("div", { class: "chargpt-attention" });
      const isOpen = viewer.firstChild?.shadowRoot.querySelector("details").open;
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
        selected: viewed.head,
        onChoice: (head) => {
          viewed.head = head;
        },
      });
      place.shadowRoot.querySelector("details").open = isOpen === true;
      viewed.key = key;
      viewed.start = start;
    }
    const end = start + window.length - 1;
    viewerTitle.textContent = `Framed is the ${unit} before the caret: from there the model predicts the next one.`;
    if (ids.length > block) {
      viewerTitle.textContent += ` This is the window of ${unit}s ${start} to ${end}, in which positions count from 0.`;
    }
    // The selected token is predicted from the one before it.
    viewed.set({ position: Math.max(0, selected - 1) - start });
  }

  // ---------------------------------------------------------------- keeping all up to date

  function lastWindow(ids) {
    return windowOf(Math.max(1, ids.length - 1), block);
  }

  let wanted = false; // something has changed since the last look
  let busy = false;
  let wake = () => {};

  // Computes and draws what has changed. Asked while it runs, it begins again from what is new.
  async function update() {
    wanted = true;
    page.setAttribute("aria-busy", "true");
    wake();
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
        if (!wanted) {
          await fillCosts(state.nats, state.off);
        }
        if (!wanted && anythingOff()) {
          await fillCosts(state.natsAllOn, ALL_ON);
        }
        // The viewer takes a while to draw: not while somebody types.
        if (!wanted) {
          await pause(200);
        }
        if (!wanted) {
          await drawViewer();
        }
      }
      failure.textContent = "";
    } catch (error) {
      showFailure(error);
    }
    busy = false;
    if (state.writing === null) {
      page.removeAttribute("aria-busy");
    }
  }

  // Ends early where something is wanted.
  function pause(milliseconds) {
    return new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, milliseconds);
    });
  }

  function showFailure(error) {
    failure.textContent = `The page cannot compute: ${error.message}`;
  }

  // Asks for the windows whose costs are not known, one after the other; ends where something newer is wanted.
  async function fillCosts(nats, off) {
    const ids = state.ids;
    for (let k = 0; k <= lastWindow(ids); k++) {
      const first = firstPredicted(k, block);
      const end = Math.min(firstPredicted(k + 1, block), ids.length);
      if (nats.length >= end) {
        continue;
      }
      const scores = await ask("score", ids, k, off);
      if (wanted || state.ids !== ids) {
        return;
      }
      nats.length = first;
      nats.push(...scores);
      drawColours(first, end);
      drawLoss();
    }
  }

  async function computeExpected() {
    const { ids, off, selected } = state;
    if (selected === 0) {
      drawNothingBefore();
      return;
    }
    const actual = selected < ids.length ? ids[selected] : null;
    const expected = await ask("expect", ids, selected, off, sampling(), 8, actual);
    const guesses = await ask("guesses", ids, selected, off, actual);
    // While the model writes, the text has gone on.
    if (!wanted && state.ids === ids) {
      drawExpected(expected, selected, actual);
      drawLens(guesses, selected, actual);
    }
  }

  function drawButtons() {
    const readable = state.unknown.length === 0;
    const writing = state.writing !== null;
    writeButton.textContent = writing ? "Stop" : "Write";
    setEnabled(writeButton, readable);
    setEnabled(stepButton, readable && !writing);
    setEnabled(backButton, state.written > 0 && !writing);
    setEnabled(promptButton, state.written > 0 && !writing);
    setEnabled(measureButton, state.ids.length >= 2 && !writing);
    // While it writes, nothing but the text is up to date.
    page.classList.toggle("writing", writing);
  }

  // ---------------------------------------------------------------- typing

  function edit(text) {
    state.writing = null;
    const old = state.ids;
    const nats = state.nats;
    const natsAllOn = state.natsAllOn;
    setText(text);
    // What stands before the first token that has changed costs what it did.
    let same = 0;
    while (same < old.length && same < state.ids.length && old[same] === state.ids[same]) {
      same += 1;
    }
    state.nats = nats.slice(0, same);
    state.natsAllOn = natsAllOn.slice(0, same);
    forgetIncreases();
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
    page.setAttribute("aria-busy", "true");
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

  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

  function showWritten() {
    state.text = state.pieces.map((piece) => piece.text).join("");
    const scroller = mirror.parentElement;
    const isAtEnd = scroller.scrollTop + scroller.clientHeight > scroller.scrollHeight - 40;
    editor.value = state.text;
    state.selected = state.ids.length;
    drawMirror();
    drawLoss();
    // Who has scrolled up reads there.
    if (isAtEnd) {
      scroller.scrollTop = scroller.scrollHeight;
    }
  }

  // Appends a token. Only the last piece can change: its bytes may be a part of a character.
  function appendToken(id) {
    state.ids = [...state.ids, id];
    const last = state.pieces.pop();
    const from = last === undefined ? 0 : last.from;
    for (const piece of tokenizer.pieces(state.ids.slice(from))) {
      state.pieces.push({ text: piece.text, from: from + piece.from, to: from + piece.to });
    }
    state.written += 1;
  }

  async function write(count) {
    if (state.writing !== null) {
      return;
    }
    if (state.ids.length === 0) {
      // The model needs something to begin with.
      edit(tokenizer.unknown("\n").length === 0 ? "\n" : tokenizer.text(0));
      state.written = state.ids.length;
    }
    mirror.parentElement.scrollTop = mirror.parentElement.scrollHeight;
    const mine = { stopped: false, begin: performance.now() };
    state.writing = mine;
    speed.textContent = "";
    drawButtons();
    forgetIncreases();
    page.setAttribute("aria-busy", "true");
    let painted = mine.begin;
    let made = 0;
    try {
      while (!mine.stopped && made < count) {
        const off = state.off;
        const { id, nats } = await ask("draw", state.ids, off, sampling(), settings.seed, state.written);
        if (state.writing !== mine) {
          return; // somebody has typed
        }
        // Where all before it is scored, its cost is known, too; else, or where a part was switched meanwhile, not.
        if (state.nats.length === state.ids.length && state.off === off) {
          state.nats.push(nats);
        }
        appendToken(id);
        made += 1;
        // A screen shows sixty pictures a second. Who asked for little motion gets a line at a time.
        const now = performance.now();
        const isDue = reducedMotion.matches ? tokenizer.text(id).includes("\n") : now - painted > 16;
        if (isDue) {
          painted = now;
          showWritten();
        }
      }
    } catch (error) {
      showFailure(error);
    }
    state.writing = null;
    showWritten();
    if (made > 1) {
      const seconds = (performance.now() - mine.begin) / 1000;
      speed.textContent = `${plural(made, unit)} written, ${Math.round(made / seconds).toLocaleString("en")} a second.`;
    }
    update();
  }

  function stepBack(count) {
    state.ids = state.ids.slice(0, state.ids.length - count);
    state.pieces = tokenizer.pieces(state.ids);
    state.written -= count;
    forgetCosts(state.ids.length);
    forgetIncreases();
    speed.textContent = "";
    showWritten();
    update();
  }

  // ---------------------------------------------------------------- only now is the static picture replaced

  const ask = connect([data.spec, data.weights, data.levels], () => host.isConnected);
  makeSwitches();
  drawSwitches();
  setText(data.text);
  editor.value = data.text;
  state.selected = state.ids.length;
  host.dataset.alive = "";
  host.attachShadow({ mode: "open" }).append(make("style", {}, data.style), page);
  drawWarning();
  update();
}
