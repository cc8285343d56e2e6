// A picture that is pointed at and painted on, by mouse, finger or keyboard.
//
// Arrow keys move a cursor (Shift: 10 pixels), Enter acts there as a click does. Coordinates are pixels of the
// picture; whole numbers are pixel centres. Events go to `on`: place(x, y), paint(), move(x, y).

import { h, say } from "./dom.js";
import { line, dot, ring, label } from "./marks.js";
import { Mask } from "./mask.js";

const ROOM = 1.6; // largest height of the canvas, in widths

export class PictureCanvas {
  constructor({ label, hint = "Arrow keys move the cursor, Enter acts at it.", on = {} } = {}) {
    this.on = on;
    this.picture = null;
    this.size = [1, 1];
    this.mask = null;
    this.tool = "look";
    this.brush = 8;
    this.tolerance = 28;
    this.points = [];
    this.pending = null;
    this.active = -1;
    this.box = null;
    this.cursor = null;
    this.view = { scale: 1, x: 0, y: 0 };
    this.pen = false;
    this.canvas = h("canvas", {
      tabindex: 0,
      role: "application",
      "aria-label": label,
      "aria-roledescription": "picture editor",
      "aria-description": hint,
    });
    this.element = h("div", { class: "stage" }, this.canvas);
    this.context = this.canvas.getContext("2d");
    new ResizeObserver(() => this.fit()).observe(this.element);
    this.listen();
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => {
      this.pen = false;
      this.draw();
    });
    canvas.addEventListener("focus", () => this.draw());
  }

  async load(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    this.show(image);
  }

  // Show a picture; its size may differ from the one before, then marks are dropped.
  show(image) {
    const size = [image.naturalWidth || image.width, image.naturalHeight || image.height];
    if (size[0] !== this.size[0] || size[1] !== this.size[1]) {
      this.size = size;
      this.mask = new Mask(...size);
      this.cursor = { x: Math.floor(size[0] / 2), y: Math.floor(size[1] / 2) };
      this.view = { scale: 1, x: 0, y: 0 };
    }
    this.picture = image;
    this.fit();
  }

  fit() {
    const width = this.element.clientWidth || 300;
    const [w, h] = this.size;
    const height = Math.min(
      (width * h) / w,
      width * ROOM,
      Math.max(320, window.innerHeight * 0.78),
    );
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.base = Math.min(this.canvas.width / w, this.canvas.height / h);
    this.draw();
  }

  // Picture -> canvas.
  get zoom() {
    return this.base * this.view.scale;
  }
  at(x, y) {
    const [w, h] = this.size,
      zoom = this.zoom;
    return [
      (x + 0.5 - w / 2 - this.view.x) * zoom + this.canvas.width / 2,
      (y + 0.5 - h / 2 - this.view.y) * zoom + this.canvas.height / 2,
    ];
  }
  from(event) {
    const box = this.canvas.getBoundingClientRect(),
      [w, h] = this.size;
    const cx = ((event.clientX - box.left) * this.canvas.width) / box.width,
      cy = ((event.clientY - box.top) * this.canvas.height) / box.height;
    return this.inside(
      (cx - this.canvas.width / 2) / this.zoom + w / 2 + this.view.x - 0.5,
      (cy - this.canvas.height / 2) / this.zoom + h / 2 + this.view.y - 0.5,
    );
  }
  inside(x, y) {
    return {
      x: Math.min(Math.max(x, 0), this.size[0] - 1),
      y: Math.min(Math.max(y, 0), this.size[1] - 1),
    };
  }

  down(event) {
    if (!this.picture || event.button > 1) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    if (event.button === 1 || this.tool === "look") {
      this.panning = { x: event.clientX, y: event.clientY, view: { ...this.view } };
      return;
    }
    const place = this.from(event);
    this.cursor = place;
    this.act(place, true);
  }
  moved(event) {
    if (this.panning) {
      const ratio = this.canvas.width / this.canvas.getBoundingClientRect().width;
      this.view.x = this.panning.view.x - ((event.clientX - this.panning.x) * ratio) / this.zoom;
      this.view.y = this.panning.view.y - ((event.clientY - this.panning.y) * ratio) / this.zoom;
      return this.draw();
    }
    const place = this.from(event);
    if (this.held) {
      this.drag(place);
      this.cursor = place;
    }
    this.hover = place;
    this.draw();
  }
  up() {
    this.panning = null;
    if (this.held) this.release();
    this.draw();
  }

  // What a press does, by the tool; it goes on until it is released.
  act(place) {
    if (this.tool === "brush" || this.tool === "erase") {
      this.mask.begin();
      this.mask.stroke(place, place, this.brush, this.tool === "brush");
      this.held = { last: place };
    } else if (this.tool === "wand") {
      this.mask.begin();
      this.mask.grow(this.picture, place, this.tolerance);
      this.on.paint?.();
    } else if (this.tool === "crop") {
      this.box = { x0: place.x, y0: place.y, x1: place.x, y1: place.y };
      this.held = { crop: true };
    } else if (this.tool === "points") {
      const near = this.nearest(place);
      if (near) {
        this.held = { point: near };
        this.active = near.index;
      } else this.on.place?.(place);
    }
    this.draw();
  }
  drag(place) {
    if (this.held.last) {
      this.mask.stroke(this.held.last, place, this.brush, this.tool === "brush");
      this.held.last = place;
    } else if (this.held.crop) Object.assign(this.box, { x1: place.x, y1: place.y });
    else if (this.held.point) this.on.moved?.(this.held.point, place);
  }
  release() {
    const held = this.held;
    this.held = null;
    if (held.last) this.on.paint?.();
    else if (held.crop) this.on.crop?.(this.box);
    else if (held.point) this.on.dropped?.(held.point);
  }

  nearest(place, reach = 11) {
    let found = null,
      least = (reach * (window.devicePixelRatio || 1)) / this.zoom;
    this.points.forEach((point, index) => {
      for (const end of ["target", "handle"]) {
        const spot = point[end];
        if (!spot || (end === "handle" && point.locked)) continue;
        const far = Math.hypot(spot.x - place.x, spot.y - place.y);
        if (far < least) {
          least = far;
          found = { index, end };
        }
      }
    });
    return found;
  }

  wheel(event) {
    if (!event.ctrlKey && !event.altKey) return; // the page scrolls; Ctrl or Alt zooms
    event.preventDefault();
    this.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, this.from(event));
  }
  zoomBy(factor, about = this.cursor) {
    const scale = Math.min(Math.max(this.view.scale * factor, 1), 16);
    const [w, h] = this.size,
      share = 1 - this.view.scale / scale;
    if (scale === 1) Object.assign(this.view, { x: 0, y: 0 });
    else {
      this.view.x += (about.x + 0.5 - w / 2 - this.view.x) * share;
      this.view.y += (about.y + 0.5 - h / 2 - this.view.y) * share;
    }
    this.view.scale = scale;
    this.draw();
  }

  key(event) {
    if (!this.picture || event.ctrlKey || event.metaKey) return;
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
        this.view.x += dx * 4;
        this.view.y += dy * 4;
        return this.draw();
      }
      const before = this.cursor;
      this.cursor = this.inside(Math.round(before.x + dx), Math.round(before.y + dy));
      if (this.pen) {
        this.drag(this.cursor);
      }
      this.on.move?.(this.cursor);
      this.spoken();
      return this.draw();
    }
    if (event.key === "Enter" || (event.key === " " && this.tool !== "points")) {
      event.preventDefault();
      if (["brush", "erase", "crop"].includes(this.tool)) {
        this.pen = !this.pen;
        if (this.pen) {
          this.act(this.cursor);
          say(
            this.tool === "crop"
              ? "First corner set. Move to the other corner and press Enter."
              : "Painting. Move with the arrow keys; Enter lifts the brush.",
          );
        } else {
          this.release();
          say(this.tool === "crop" ? "Crop set." : "Brush lifted.");
        }
      } else if (this.tool === "points") this.on.place?.(this.cursor, true);
      else this.act(this.cursor);
      return this.draw();
    }
    if (event.key === "+" || event.key === "=") {
      this.zoomBy(1.4);
      event.preventDefault();
    }
    if (event.key === "-") {
      this.zoomBy(1 / 1.4);
      event.preventDefault();
    }
    if (event.key === "0") {
      this.zoomBy(0);
      event.preventDefault();
    }
    if (event.key === "[" || event.key === "]") {
      this.setBrush(this.brush * (event.key === "]" ? 1.25 : 0.8));
      event.preventDefault();
    }
    if (event.key === "Escape" && this.pen) {
      this.pen = false;
      this.release();
      event.stopPropagation();
      event.preventDefault();
      this.draw();
    }
  }
  spoken() {
    clearTimeout(this.telling);
    this.telling = setTimeout(
      () => say(`${Math.round(this.cursor.x)}, ${Math.round(this.cursor.y)}`),
      350,
    );
  }
  setBrush(radius) {
    this.brush = Math.min(Math.max(Math.round(radius * 2) / 2, 1), Math.max(...this.size) / 4);
    this.on.brush?.(this.brush);
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }
  paint() {
    const g = this.context,
      [w, h] = this.size,
      zoom = this.zoom;
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.picture) return;
    const [left, top] = this.at(-0.5, -0.5);
    g.imageSmoothingEnabled = zoom < 6;
    g.imageSmoothingQuality = "high";
    g.drawImage(this.picture, left, top, w * zoom, h * zoom);
    if (this.mask && !this.mask.empty && this.showMask !== false)
      this.mask.draw(g, left, top, zoom, this.dims);
    if (this.box) this.drawBox(g);
    this.drawPoints(g);
    this.drawCursor(g);
  }
  drawBox(g) {
    const { x0, y0, x1, y1 } = this.box;
    const [left, top] = this.at(Math.min(x0, x1) - 0.5, Math.min(y0, y1) - 0.5),
      [right, bottom] = this.at(Math.max(x0, x1) + 0.5, Math.max(y0, y1) + 0.5);
    g.fillStyle = "rgb(0 0 0 / 50%)";
    g.beginPath();
    g.rect(0, 0, this.canvas.width, this.canvas.height);
    g.rect(left, top, right - left, bottom - top);
    g.fill("evenodd");
    g.strokeStyle = "#fff";
    g.lineWidth = 2;
    g.strokeRect(left, top, right - left, bottom - top);
  }
  drawPoints(g) {
    const unit = window.devicePixelRatio || 1;
    const all = this.pending ? [...this.points, { handle: this.pending, open: true }] : this.points;
    all.forEach((point, index) => {
      const [hx, hy] = this.at(point.handle.x, point.handle.y);
      const end = point.target ?? (point.open ? (this.hover ?? this.cursor) : null);
      if (end) {
        const [tx, ty] = this.at(end.x, end.y);
        line(g, hx, hy, tx, ty, 4.5 * unit, "rgb(15 18 24 / 75%)");
        line(g, hx, hy, tx, ty, 2 * unit, "#ffffff");
        if (point.target) dot(g, tx, ty, 7 * unit, "#2f6bff");
      }
      dot(g, hx, hy, 7 * unit, "#e0362c");
      if (all.length > 1 || index === this.active)
        label(g, hx, hy - 15 * unit, String(index + 1), unit);
    });
  }
  drawCursor(g) {
    const unit = window.devicePixelRatio || 1,
      painting = this.tool === "brush" || this.tool === "erase";
    const keyed = document.activeElement === this.canvas,
      place = this.hover && !keyed ? this.hover : this.cursor;
    if (painting && place)
      ring(g, ...this.at(place.x, place.y), Math.max(this.brush * this.zoom, 3), unit);
    if (!keyed || !this.cursor || this.tool === "look") return;
    const [x, y] = this.at(this.cursor.x, this.cursor.y),
      arm = 11 * unit;
    for (const [width, colour] of [
      [4 * unit, "rgb(0 0 0 / 70%)"],
      [1.6 * unit, this.pen ? "#ffd54a" : "#ffffff"],
    ]) {
      line(g, x - arm, y, x - 4 * unit, y, width, colour);
      line(g, x + 4 * unit, y, x + arm, y, width, colour);
      line(g, x, y - arm, x, y - 4 * unit, width, colour);
      line(g, x, y + 4 * unit, x, y + arm, width, colour);
    }
  }
}
