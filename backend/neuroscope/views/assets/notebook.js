// In a notebook: the still picture becomes the result's page in a frame, as soon as plotly is here (it comes with some of the results).
((root, page, plots) => {
  const show = () => {
    const frame = document.createElement("iframe");
    frame.style.cssText = `width:100%;border:0;height:${root.offsetHeight}px`;
    frame.title = root.title;
    frame.addEventListener("load", () => {
      const fit = () => { frame.style.height = `${frame.contentDocument.body.scrollHeight + 4}px`; };
      frame.contentDocument.addEventListener("neuroscope-drawn", fit);
      fit();
    });
    frame.srcdoc = page;
    root.replaceChildren(frame);
  };
  if (!plots || window.neuroscopePlotly) show();
  else window.addEventListener("neuroscope-plotly", show, {once: true});
})