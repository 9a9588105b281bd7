// Attention of every head: a grid of heads, the text's tokens, and the chosen head's pattern.
window.neuroscopePanels.attention = (root, data) => {
  const bytes = Uint8Array.from(atob(data.patterns), letter => letter.charCodeAt(0));
  const n = data.tokens.length, heads = data.headCount;
  const weight = (layer, head, query, key) => bytes[((layer * heads + head) * n + query) * n + key] / 255;
  const make = (parent, tag, className, text) => {
    const element = parent.appendChild(document.createElement(tag));
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const shown = token => token.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
  const percent = share => (100 * share).toFixed(share < 0.0995 ? 1 : 0) + " %";
  let chosen = data.heads[0], looking = n - 1, measure = "";

  const controls = make(root, "div", "row");
  make(controls, "span", "faint", "Colour heads by");
  const select = make(controls, "select");
  select.setAttribute("aria-label", "What colours the heads");
  for (const name of data.measures) make(select, "option", "", name).value = name;
  const columns = make(root, "div", "columns");
  const left = make(columns, "div"), right = make(columns, "div");
  const grid = make(left, "div", "heads");
  grid.style.gridTemplateColumns = `max-content repeat(${heads}, minmax(0, 1fr))`;
  make(grid, "span", "number", "");
  for (let head = 0; head < heads; head++) make(grid, "span", "number top", head);
  const buttons = data.heads.map((head, index) => {
    if (index % heads === 0) make(grid, "span", "number", head.layer);
    const button = make(grid, "button");
    button.addEventListener("click", () => { chosen = head; draw(); });
    return button;
  });
  make(left, "p", "faint", "One row a layer, one column a head. Pick a head; stronger colour, larger score.");

  const title = make(right, "h2", "chosen");
  const text = make(right, "div", "tokens");
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", "Tokens: point at one to see where it looks");
  const tokens = data.tokens.map((token, index) => {
    const span = make(text, "span", "", shown(token));
    span.tabIndex = 0;
    for (const event of ["pointerenter", "focus", "click"]) span.addEventListener(event, () => { looking = index; draw(); });
    return span;
  });
  const reading = make(right, "div", "reading faint");

  const cell = 16, edge = Math.min(110, 12 + 7 * Math.max(...data.tokens.map(token => shown(token).length)));
  const space = "http://www.w3.org/2000/svg";
  const svg = right.appendChild(document.createElementNS(space, "svg"));
  const size = edge + n * cell;
  svg.setAttribute("viewBox", `0 0 ${size + 2} ${size + 2}`);
  svg.style.maxWidth = `${Math.max(320, Math.min(900, size * 1.6))}px`;
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Attention pattern: rows look, columns are looked at");
  const shape = (tag, values, className) => {
    const element = svg.appendChild(document.createElementNS(space, tag));
    for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
    if (className) element.setAttribute("class", className);
    return element;
  };
  data.tokens.forEach((token, index) => {
    const at = edge + index * cell + cell * 0.72;
    shape("text", {x: edge - 5, y: at, "font-size": 11, "text-anchor": "end"}).textContent = shown(token);
    shape("text", {x: 0, y: 0, "font-size": 11, transform: `translate(${at} ${edge - 5}) rotate(-90)`}).textContent = shown(token);
  });
  const cells = [];
  for (let query = 0; query < n; query++)
    for (let key = 0; key <= query; key++) {
      const rect = shape("rect", {x: edge + key * cell, y: edge + query * cell, width: cell - 1, height: cell - 1, rx: 2});
      rect.addEventListener("pointerenter", () => { looking = query; draw(); tell(query, key); });
      cells.push([rect, query, key]);
    }
  shape("rect", {x: edge, y: edge, width: n * cell, height: n * cell}, "frame");
  const band = shape("rect", {x: edge, width: n * cell, height: cell}, "band");

  const tell = (query, key) => {
    reading.textContent = `“${shown(data.tokens[query])}” attends to “${shown(data.tokens[key])}”: ${percent(weight(chosen.layer, chosen.head, query, key))}`;
  };
  const draw = () => {
    const {layer, head} = chosen;
    if (measure !== select.value) {
      measure = select.value;
      const most = Math.max(...data.heads.map(each => each.scores[measure]), 1e-9);
      data.heads.forEach((each, index) => {
        buttons[index].style.setProperty("--score", Math.max(0, each.scores[measure]) / most);
        const roles = each.roles.length ? `, ${each.roles.join(", ")}` : "";
        buttons[index].title = `layer ${each.layer}, head ${each.head}: ${measure} ${each.scores[measure].toFixed(2)}${roles}`;
        buttons[index].setAttribute("aria-label", buttons[index].title);
      });
    }
    data.heads.forEach((each, index) => buttons[index].setAttribute("aria-pressed", each === chosen));
    title.textContent = `Layer ${layer}, head ${head}`;
    for (const role of chosen.roles) make(title, "span", "role", role);
    tokens.forEach((span, key) => {
      span.style.setProperty("--weight", key <= looking ? weight(layer, head, looking, key) : 0);
      span.classList.toggle("looking", key === looking);
    });
    const best = [...Array(looking + 1).keys()].sort((a, b) => weight(layer, head, looking, b) - weight(layer, head, looking, a)).slice(0, 3);
    reading.textContent = `“${shown(data.tokens[looking])}” attends to ` +
      best.map(key => `“${shown(data.tokens[key])}” (${percent(weight(layer, head, looking, key))})`).join(", ");
    for (const [rect, query, key] of cells) rect.setAttribute("fill-opacity", 0.04 + 0.96 * weight(layer, head, query, key));
    band.setAttribute("y", edge + looking * cell);
  };
  const strongest = data.heads.reduce((best, each) => each.scores[data.measures[0]] > best.scores[data.measures[0]] ? each : best);
  chosen = strongest;
  select.addEventListener("change", () => {
    chosen = data.heads.reduce((best, each) => each.scores[select.value] > best.scores[select.value] ? each : best);
    draw();
  });
  draw();
};
