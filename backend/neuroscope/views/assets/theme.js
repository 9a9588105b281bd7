// Plotly's figures use the page's colours and change with them.
(() => {
  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const [ink, rule, card] = ["--ink", "--rule", "--card"].map(name => style.getPropertyValue(name).trim());
    for (const figure of document.querySelectorAll(".plotly-graph-div")) {
      const clear = "rgba(0,0,0,0)";
      const change = {paper_bgcolor: clear, plot_bgcolor: clear, "font.color": ink, "hoverlabel.bgcolor": card,
                      "hoverlabel.font.color": ink, "hoverlabel.bordercolor": rule};
      for (const axis of Object.keys(figure._fullLayout).filter(key => /^[xy]axis\d*$/.test(key)))
        for (const line of ["gridcolor", "zerolinecolor", "linecolor"]) change[`${axis}.${line}`] = rule;
      Plotly.relayout(figure, change);
    }
  };
  document.addEventListener("neuroscope-drawn", () => {
    paint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  });
})();
