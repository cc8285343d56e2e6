// Draws a picture canvas: the picture, its mask, the crop box, points and the cursor.

import { dot, label, line, ring } from "./marks.js";

export function paint(canvas) {
  const g = canvas.context,
    [w, h] = canvas.size,
    zoom = canvas.zoom;
  g.setTransform(1, 0, 0, 1, 0, 0);
  g.clearRect(0, 0, canvas.canvas.width, canvas.canvas.height);
  if (!canvas.picture) return;
  const [left, top] = canvas.at(-0.5, -0.5);
  g.imageSmoothingEnabled = zoom < 6;
  g.imageSmoothingQuality = "high";
  g.drawImage(canvas.picture, left, top, w * zoom, h * zoom);
  if (canvas.mask && !canvas.mask.empty && canvas.showMask !== false)
    canvas.mask.draw(g, left, top, zoom, canvas.dims);
  if (canvas.box) drawBox(canvas, g);
  drawPoints(canvas, g);
  drawCursor(canvas, g);
}
function drawBox(canvas, g) {
  const { x0, y0, x1, y1 } = canvas.box;
  const [left, top] = canvas.at(Math.min(x0, x1) - 0.5, Math.min(y0, y1) - 0.5),
    [right, bottom] = canvas.at(Math.max(x0, x1) + 0.5, Math.max(y0, y1) + 0.5);
  g.fillStyle = "rgb(0 0 0 / 50%)";
  g.beginPath();
  g.rect(0, 0, canvas.canvas.width, canvas.canvas.height);
  g.rect(left, top, right - left, bottom - top);
  g.fill("evenodd");
  g.strokeStyle = "#fff";
  g.lineWidth = 2;
  g.strokeRect(left, top, right - left, bottom - top);
}
function drawPoints(canvas, g) {
  const unit = window.devicePixelRatio || 1;
  const all = canvas.pending
    ? [...canvas.points, { handle: canvas.pending, open: true }]
    : canvas.points;
  all.forEach((point, index) => {
    const [hx, hy] = canvas.at(point.handle.x, point.handle.y);
    const end = point.target ?? (point.open ? (canvas.hover ?? canvas.cursor) : null);
    if (end) {
      const [tx, ty] = canvas.at(end.x, end.y);
      line(g, hx, hy, tx, ty, 4.5 * unit, "rgb(15 18 24 / 75%)");
      line(g, hx, hy, tx, ty, 2 * unit, "#ffffff");
      if (point.target) dot(g, tx, ty, 7 * unit, "#2f6bff");
    }
    dot(g, hx, hy, 7 * unit, "#e0362c");
    if (all.length > 1 || index === canvas.active)
      label(g, hx, hy - 15 * unit, String(index + 1), unit);
  });
}
function drawCursor(canvas, g) {
  const unit = window.devicePixelRatio || 1,
    painting = canvas.tool === "brush" || canvas.tool === "erase";
  const keyed = document.activeElement === canvas.canvas,
    place = canvas.hover && !keyed ? canvas.hover : canvas.cursor;
  if (painting && place)
    ring(g, ...canvas.at(place.x, place.y), Math.max(canvas.brush * canvas.zoom, 3), unit);
  if (!keyed || !canvas.cursor || canvas.tool === "look") return;
  const [x, y] = canvas.at(canvas.cursor.x, canvas.cursor.y),
    arm = 11 * unit;
  for (const [width, colour] of [
    [4 * unit, "rgb(0 0 0 / 70%)"],
    [1.6 * unit, canvas.pen ? "#ffd54a" : "#ffffff"],
  ]) {
    line(g, x - arm, y, x - 4 * unit, y, width, colour);
    line(g, x + 4 * unit, y, x + arm, y, width, colour);
    line(g, x, y - arm, x, y - 4 * unit, width, colour);
    line(g, x, y + 4 * unit, x, y + arm, width, colour);
  }
}
