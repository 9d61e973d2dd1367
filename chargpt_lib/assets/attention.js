function attend(data) {
  // data.host: the live page (playground.js) makes its own; in a notebook the output's is found by its key.
  const hosts = data.host ? [data.host] : [...document.querySelectorAll(".chargpt-attention")];
  const host = hosts.find((one) => one.dataset.key === data.key && !one.shadowRoot);
  if (!host || !host.attachShadow) return;

  const range = (n) => [...Array(n).keys()];
  const unit = typeof data.text === "string" ? "character" : "token"; // what stands at a position
  const tokens = Array.from(data.text); // of a string its code points, as Python counts them
  const T = tokens.length, L = data.layers.length, H = data.heads.length;
  const rows = L > 1 ? L + 1 : 1, columns = H > 1 ? H + 1 : 1; // the last ones are the means
  const { row = 0, column = 0, position = T - 1 } = data.selected ?? {};
  const state = { position, choice: row * columns + column, cell: null }; // choice: a head, or a mean

  // ---- the weights

  const tints = []; // of a weight's character: the square root of the weight
  Array.from(data.levels, (char, k) => (tints[char.charCodeAt(0)] = k / (data.levels.length - 1)));

  // how much a head, or the mean of several, looks from position t at 0, 1, ... t
  function look(choice, t) {
    const row = Math.floor(choice / columns), column = choice % columns;
    const layers = row < L ? [row] : range(L), heads = column < H ? [column] : range(H);
    const maps = layers.flatMap((layer) => heads.map((head) => layer * H + head));
    const sums = new Float64Array(t + 1);
    for (const map of maps) {
      const start = (map * T * (T + 1)) / 2 + (t * (t + 1)) / 2;
      for (let s = 0; s <= t; s++) sums[s] += tints[data.weights.charCodeAt(start + s)] ** 2;
    }
    return sums.map((sum) => sum / maps.length);
  }

  function strongest(weights, count) {
    const order = range(weights.length).sort((a, b) => weights[b] - weights[a] || b - a);
    return order.slice(0, count).filter((s, i) => i === 0 || weights[s] > 0);
  }

  // ---- words

  // the characters of a token; a mark at its beginning would sit on the token before it
  const characters = (t) => Array.from((/^\p{M}/u.test(tokens[t]) ? "◌" : "") + tokens[t]);
  const glyph = (t) => characters(t).map(sign).join("");
  const quote = (t) => WORDS[tokens[t]] ?? `“${glyph(t)}”`;
  const spell = (char) => (WORDS[char] ? ` ${WORDS[char].slice(2)} ` : sign(char));
  const spoken = (t) => characters(t).map(spell).join("").replace(/ +/g, " ").trim();

  function percent(weight) {
    const whole = Math.round(100 * weight);
    return whole === 0 && weight > 0 ? "under 1 %" : whole + " %";
  }

  function nameOf(choice) {
    const layer = data.layers[Math.floor(choice / columns)], head = data.heads[choice % columns];
    if (layer === undefined && head === undefined) return "mean of all heads";
    if (layer === undefined) return `head ${head}, mean of layers`;
    return `layer ${layer}, ${head === undefined ? "mean of heads" : "head " + head}`;
  }

  function sentence(weights) {
    const t = state.position, s = state.cell, [start] = lines.find((line) => line.includes(t));
    const line = tokens.slice(0, t).join("").split("\n").length; // one token may hold several line ends
    const where = `line ${line}, ${unit === "token" ? "token" : "column"} ${t - start + 1}, position ${t}`;
    const who = `${nameOf(state.choice)}: ${quote(t)} (${where})`;
    if (s > t) return `${who} cannot look at position ${s}, which comes later.`;
    const seen = s === null ? strongest(weights, 3) : [s];
    return `${who} looks ${seen.map((s) => `${percent(weights[s])} at ${quote(s)} (position ${s})`).join(", ")}.`;
  }

  // ---- what is on the page

  const lines = [[]]; // the positions of each line: of the tokens that begin in it
  tokens.forEach((token, t) => {
    lines.at(-1).push(t);
    if (token.includes("\n") && t < T - 1) lines.push([]);
  });

  // what stands for a character: its sign, faint, or itself; a line that ends inside a token ends there
  function drawn(char, i, all) {
    const shown = sign(char) === char ? char : make("span", { class: "faint" }, sign(char));
    return char === "\n" && i < all.length - 1 ? [shown, make("br", {})] : [shown];
  }
  const letters = tokens.map((_, t) => make("span", { role: "gridcell", id: "t" + t, "aria-label": spoken(t) },
    ...characters(t).flatMap(drawn)));

  // lines end after a token that ends one, and may be broken after spaces, or before a token such as " goose"
  function breakable(t) {
    const before = /^\s\S/.test(tokens[t]) ? [make("wbr", {})] : [];
    if (tokens[t].endsWith("\n")) return [...before, letters[t], make("br", {})];
    return [...before, letters[t], ...(/\s$/.test(tokens[t]) ? [make("wbr", {})] : [])];
  }
  const text = make("div", {
    class: "text", role: "grid", tabindex: 0, "data-unit": unit, "aria-label": "text: arrow keys move",
  }, ...lines.map((line) => make("div", { role: "row" }, ...line.flatMap(breakable))));

  const choices = range(rows).map((row) => range(columns).map((column) => row * columns + column));
  const buttons = range(rows * columns).map((choice) => make("td", { role: "gridcell", id: "h" + choice }));
  const title = (scope, word) => make("th", { scope }, word ?? "mean");
  const heads = make("table", {
    class: "heads", role: "grid", tabindex: 0, "data-unit": unit, "aria-label": "heads: arrow keys choose",
  }, make("caption", {}, "What each head looks at most"),
    make("tr", {}, title("col", "layer ↓ head →"), ...range(columns).map((x) => title("col", data.heads[x]))),
    ...choices.map((row, y) => make("tr", {}, title("row", data.layers[y]), ...row.map((choice) => buttons[choice]))));
  heads.style.setProperty("--columns", columns);

  const canvas = make("canvas", { role: "img", width: T, height: T });
  canvas.style.width = T * Math.max(2, Math.min(24, Math.round(384 / T))) + "px"; // whole pixels for each cell
  const marker = make("div", { class: "marker" });
  const matrix = make("div", { class: "matrix" }, make("div", {}, "looks at →"),
    make("div", {}, "position →"), make("div", { class: "frame" }, canvas, marker)); // the style turns "position →"

  const ticks = [0, 1, 10, 50, 100].map((weight) => make("span", {}, weight ? weight + " %" : "0"));
  [0, 1, 10, 50, 100].forEach((weight, i) => (ticks[i].style.left = 10 * Math.sqrt(weight) + "%"));
  const legend = make("div", { class: "legend" }, "weight (the tint is its square root)",
    make("div", { class: "bar" }), make("div", { class: "ticks" }, ...ticks));

  const readout = make("p", { class: "readout", "aria-live": "polite" });
  const hint = make("p", { class: "hint" },
    `Point at a ${unit} or the picture; choose a head. With the keyboard: Tab, then arrows. Positions count from 0.`);
  const list = make("table", { class: "list" });
  const details = make("details", {}, make("summary", {}, "as a table"), list);

  // ---- drawing

  // one colour of middling lightness, never at full strength: black text and white text can both be read on it
  const alpha = (weight) => 0.8 * Math.sqrt(weight);
  function tint(element, weight = 0) {
    element.style.backgroundColor = `rgb(0 122 192 / ${alpha(weight).toFixed(3)})`;
  }

  function drawMatrix() {
    const image = new ImageData(T, T), page = getComputedStyle(host).color.match(/[\d.]+/g); // the page's text colour
    const ink = [0, 122, 192].map((part, i) => 0.65 * part + 0.35 * page[i]); // no text on it: farther from the ground
    const paint = (t) => (weight, s) => image.data.set([...ink, 255 * alpha(weight)], 4 * (t * T + s));
    for (const t of range(T)) look(state.choice, t).forEach(paint(t));
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  function drawButton(button, choice) {
    const weights = look(choice, state.position), [s] = strongest(weights, 1), back = state.position - s;
    const where = back ? `${back} ${unit}${back > 1 ? "s" : ""} back` : "itself";
    button.textContent = glyph(s);
    button.title = `${nameOf(choice)}: looks ${percent(weights[s])} at ${quote(s)}, ${where}`;
    button.ariaLabel = button.title;
    button.ariaSelected = choice === state.choice;
    tint(button, weights[s]);
  }

  function drawList(weights) {
    const line = (s) => make("tr", {}, title("row", s), make("td", {}, quote(s)), make("td", {}, percent(weights[s])));
    const caption = `${nameOf(state.choice)}: where ${quote(state.position)} at position ${state.position} looks`;
    list.replaceChildren(make("caption", {}, caption),
      make("tr", {}, ...["position", unit, "weight"].map((word) => title("col", word))),
      ...strongest(weights, 20).map(line));
  }

  function draw() {
    const weights = look(state.choice, state.position);
    letters.forEach((letter, s) => {
      tint(letter, weights[s]);
      letter.ariaSelected = s === state.position;
      letter.classList.toggle("aim", s === state.cell);
    });
    buttons.forEach(drawButton);
    text.setAttribute("aria-activedescendant", "t" + state.position);
    heads.setAttribute("aria-activedescendant", "h" + state.choice);
    marker.style.top = (100 * state.position) / T + "%";
    marker.style.height = 100 / T + "%";
    canvas.ariaLabel = `${nameOf(state.choice)}: ${T} × ${T} weights; row ${state.position} is selected`;
    readout.textContent = sentence(weights);
    if (details.open) drawList(weights);
  }

  function set(change) {
    const old = { ...state };
    Object.assign(state, { cell: null }, change);
    if (state.choice !== old.choice) {
      drawMatrix();
      data.onChoice?.({ row: Math.floor(state.choice / columns), column: state.choice % columns });
    }
    if (Object.keys(state).some((name) => state[name] !== old[name])) draw();
  }

  // ---- mouse and keys

  // where a key leads, in rows that hold 0, 1, 2 ... in order
  function goal(grid, from, event) {
    const y = grid.findIndex((row) => row.includes(from)), last = grid.at(-1).at(-1);
    const across = (row) => (row ? row[Math.min(from - grid[y][0], row.length - 1)] : from);
    if (event.altKey || event.metaKey || event.shiftKey) return undefined;
    if (event.ctrlKey) return { Home: 0, End: last }[event.key];
    return {
      ArrowLeft: Math.max(0, from - 1), ArrowRight: Math.min(last, from + 1),
      ArrowUp: across(grid[y - 1]), ArrowDown: across(grid[y + 1]),
      Home: grid[y][0], End: grid[y].at(-1), Enter: from, " ": from,
    }[event.key];
  }

  function listen(part, elements, grid, name, hover) {
    const point = (event) => {
      const place = elements.indexOf(event.target.closest("[role=gridcell]"));
      if (place >= 0) set({ [name]: place });
    };
    part.addEventListener(hover, point);
    part.addEventListener("click", point);
    part.addEventListener("click", () => part.focus({ preventScroll: true }));
    part.addEventListener("keydown", (event) => {
      const next = goal(grid, state[name], event);
      if (next === undefined) return;
      event.preventDefault(); // else the page scrolls,
      event.stopPropagation(); // and a notebook goes to another cell
      set({ [name]: next });
      elements[next].scrollIntoView({ block: "nearest" });
    });
  }

  function pointInMatrix(event) {
    const box = canvas.getBoundingClientRect();
    const cell = (part) => Math.max(0, Math.min(T - 1, Math.floor(part * T)));
    set({ position: cell((event.clientY - box.top) / box.height), cell: cell((event.clientX - box.left) / box.width) });
  }

  listen(text, letters, lines, "position", "pointerover");
  listen(heads, buttons, choices, "choice", "click");
  for (const name of ["pointermove", "pointerdown"]) canvas.addEventListener(name, pointInMatrix);
  canvas.addEventListener("pointerleave", () => set({}));
  details.addEventListener("toggle", draw);

  // only now is the static picture replaced: whatever fails above leaves it standing
  drawMatrix();
  draw();
  host.dataset.alive = "";
  host.attachShadow({ mode: "open" }).append(make("style", {}, data.style),
    make("div", { class: "viewer", role: "group", "aria-label": "attention viewer" },
      make("div", { class: "left" }, heads, text, readout),
      make("div", { class: "right" }, matrix, legend), hint, details));
  return set;
}
