// What is drawn over pictures: lines, points, the brush, numbers.

export function line(g, x0, y0, x1, y1, width, colour) {
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.lineCap = "round";
  g.beginPath();
  g.moveTo(x0, y0);
  g.lineTo(x1, y1);
  g.stroke();
}

export function dot(g, x, y, radius, colour) {
  for (const [size, fill] of [
    [1, "#14161a"],
    [0.85, "#ffffff"],
    [0.62, colour],
  ]) {
    g.fillStyle = fill;
    g.beginPath();
    g.arc(x, y, radius * size, 0, 7);
    g.fill();
  }
}

export function ring(g, x, y, radius, unit) {
  for (const [width, colour] of [
    [3 * unit, "rgb(0 0 0 / 60%)"],
    [1.4 * unit, "#fff"],
  ]) {
    g.strokeStyle = colour;
    g.lineWidth = width;
    g.beginPath();
    g.arc(x, y, radius, 0, 7);
    g.stroke();
  }
}

export function label(g, x, y, text, unit) {
  g.font = `600 ${12 * unit}px system-ui, sans-serif`;
  g.textAlign = "center";
  g.textBaseline = "middle";
  g.lineWidth = 4 * unit;
  g.strokeStyle = "rgb(15 18 24 / 85%)";
  g.strokeText(text, x, y);
  g.fillStyle = "#fff";
  g.fillText(text, x, y);
}
