// Entangled units as cards: the unit's response to each domain, and its strongest contexts.
window.neuroscopePanels.units = (root, data) => {
  const make = (parent, tag, className, text) => {
    const element = parent.appendChild(document.createElement(tag));
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const shown = token => token.replace(/\n/g, "⏎ ").replace(/\t/g, "⇥");
  const controls = make(root, "div", "row");
  const list = make(root, "div", "list");
  let wanted = null, count = 12;
  const buttons = [null, ...data.combinations].map(combination => {
    const button = make(controls, "button", "", combination === null ? `all (${data.units.length})` : `${combination.join(" + ")} (${
      data.units.filter(unit => unit.domains.join() === combination.join()).length})`);
    button.addEventListener("click", () => { wanted = combination; count = 12; draw(); });
    return [button, combination];
  });
  const more = make(root, "button", "more", "Show more");
  more.style.marginTop = ".75rem";
  more.addEventListener("click", () => { count += 24; draw(); });

  const card = unit => {
    const article = make(list, "article");
    const header = make(article, "header");
    make(header, "strong", "", unit.site);
    make(header, "span", "faint", `${unit.kind} · q ${unit.qValue.toPrecision(2)} · selectivity ${unit.selectivity.toFixed(2)}`);
    make(article, "div", "", unit.hypothesis);
    const bars = make(article, "div", "bars");
    for (const [domain, auroc] of Object.entries(unit.auroc)) {
      make(bars, "span", "", domain);
      const bar = make(bars, "span", unit.domains.includes(domain) ? "bar" : "bar quiet");
      make(bar, "i").style.width = `${100 * auroc}%`;
      make(bars, "span", "faint", `AUROC ${auroc.toFixed(2)}`);
    }
    const contexts = make(article, "div", "contexts");
    const most = Math.max(...unit.topContexts.flatMap(context => context.activations.slice(1)), 1e-9);
    for (const context of unit.topContexts) {
      const line = make(contexts, "div");
      make(line, "b", "", context.domain);
      context.tokens.forEach((token, index) => {
        const span = make(line, "span", index === context.peak ? "peak" : "", shown(token));
        if (index) span.style.setProperty("--weight", Math.max(0, context.activations[index] / most) * 0.75);
        span.title = context.activations[index].toFixed(3);
      });
    }
  };
  const draw = () => {
    list.replaceChildren();
    const units = data.units.filter(unit => wanted === null || unit.domains.join() === wanted.join());
    units.slice(0, count).forEach(card);
    if (!units.length) make(list, "p", "faint", "No unit responds in two domains.");
    more.hidden = units.length <= count;
    for (const [button, combination] of buttons) button.setAttribute("aria-pressed", combination === wanted);
  };
  draw();
};
