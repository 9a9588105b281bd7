// Unpacks plotly and draws the page's figures. In a notebook's frame the packed script lies in the notebook itself, for all results.
(async () => {
  const packed = window.neuroscopePlotly ?? window.parent.neuroscopePlotly;
  const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
  for (const draw of window.neuroscopeFigures ?? []) await draw();
  document.dispatchEvent(new Event("neuroscope-drawn"));
})();
