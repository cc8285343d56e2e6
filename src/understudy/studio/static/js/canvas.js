// A picture that is pointed at and painted on, by mouse, finger or keyboard.
//
// Arrow keys move a cursor (Shift: 10 pixels), Enter acts there as a click does. Coordinates are pixels of the
// picture; whole numbers are pixel centres. Events go to `on`: place(x, y), paint(), move(x, y).

import { h, say } from "./dom.js";
import { pressed } from "./canvas_keys.js";
import { paint } from "./canvas_draw.js";
import { Mask } from "./mask.js";

const ROOM = 1.6; // largest height of the canvas, in widths

export class PictureCanvas {
  constructor({ label, hint = "Arrow keys move the cursor, Enter clicks there.", on = {} } = {}) {
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
    canvas.addEventListener("keydown", (event) => pressed(this, event));
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
      Math.max(280, window.innerHeight * (this.element.closest("dialog") ? 0.56 : 0.78)),
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
      paint(this);
    });
  }
}
