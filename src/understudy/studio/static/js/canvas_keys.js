// What the keys do on a picture canvas. See shortcuts.js for the list.

import { say } from "./dom.js";

export function pressed(canvas, event) {
  if (!canvas.picture || event.ctrlKey || event.metaKey) return;
  const far = event.shiftKey ? 10 : 1;
  const moves = {
    ArrowLeft: [-far, 0],
    ArrowRight: [far, 0],
    ArrowUp: [0, -far],
    ArrowDown: [0, far],
  };
  if (moves[event.key]) {
    event.preventDefault();
    const [dx, dy] = moves[event.key];
    if (event.altKey) {
      canvas.view.x += dx * 4;
      canvas.view.y += dy * 4;
      return canvas.draw();
    }
    const before = canvas.cursor;
    canvas.cursor = canvas.inside(Math.round(before.x + dx), Math.round(before.y + dy));
    if (canvas.pen) {
      canvas.drag(canvas.cursor);
    }
    canvas.on.move?.(canvas.cursor);
    canvas.spoken();
    return canvas.draw();
  }
  if (event.key === "Enter" || (event.key === " " && canvas.tool !== "points")) {
    event.preventDefault();
    if (["brush", "erase", "crop"].includes(canvas.tool)) {
      canvas.pen = !canvas.pen;
      if (canvas.pen) {
        canvas.act(canvas.cursor);
        say(
          canvas.tool === "crop"
            ? "First corner set. Move to the other corner and press Enter."
            : "Painting. Move with the arrow keys; Enter lifts the brush.",
        );
      } else {
        canvas.release();
        say(canvas.tool === "crop" ? "Crop set." : "Brush lifted.");
      }
    } else if (canvas.tool === "points") canvas.on.place?.(canvas.cursor, true);
    else canvas.act(canvas.cursor);
    return canvas.draw();
  }
  if (event.key === "+" || event.key === "=") {
    canvas.zoomBy(1.4);
    event.preventDefault();
  }
  if (event.key === "-") {
    canvas.zoomBy(1 / 1.4);
    event.preventDefault();
  }
  if (event.key === "0") {
    canvas.zoomBy(0);
    event.preventDefault();
  }
  if (event.key === "[" || event.key === "]") {
    canvas.setBrush(canvas.brush * (event.key === "]" ? 1.25 : 0.8));
    event.preventDefault();
  }
  if (event.key === "Escape" && canvas.pen) {
    canvas.pen = false;
    canvas.release();
    event.stopPropagation();
    event.preventDefault();
    canvas.draw();
  }
}
