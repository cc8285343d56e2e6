// A mask painted on a picture: white where something may change. Undo and redo keep whole masks.

const HISTORY = 40;

export class Mask {
  constructor(width, height) {
    this.canvas = Object.assign(document.createElement("canvas"), { width, height });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.tint = Object.assign(document.createElement("canvas"), { width, height });
    this.past = [];
    this.future = [];
    this.empty = true;
  }

  get size() {
    return [this.canvas.width, this.canvas.height];
  }
  data() {
    return this.context.getImageData(0, 0, ...this.size);
  }

  // Remember what there is before a change.
  begin() {
    this.past.push(this.empty ? null : this.data());
    if (this.past.length > HISTORY) this.past.shift();
    this.future = [];
  }
  restore(kept) {
    this.context.clearRect(0, 0, ...this.size);
    if (kept) this.context.putImageData(kept, 0, 0);
    this.empty = !kept;
  }
  undo() {
    if (!this.past.length) return false;
    this.future.push(this.empty ? null : this.data());
    this.restore(this.past.pop());
    return true;
  }
  redo() {
    if (!this.future.length) return false;
    this.past.push(this.empty ? null : this.data());
    this.restore(this.future.pop());
    return true;
  }

  stroke(from, to, radius, adds) {
    const g = this.context;
    g.globalCompositeOperation = adds ? "source-over" : "destination-out";
    g.strokeStyle = g.fillStyle = "#fff";
    g.lineWidth = 2 * radius;
    g.lineCap = "round";
    g.beginPath();
    g.moveTo(from.x + 0.5, from.y + 0.5);
    g.lineTo(to.x + 0.5, to.y + 0.51);
    g.stroke();
    g.globalCompositeOperation = "source-over";
    if (adds) this.empty = false;
    else this.check();
  }

  check() {
    const { data } = this.data();
    this.empty = true;
    for (let i = 3; i < data.length; i += 4)
      if (data[i] > 127) {
        this.empty = false;
        return;
      }
  }

  clear() {
    this.begin();
    this.restore(null);
  }
  fill() {
    this.begin();
    this.context.fillStyle = "#fff";
    this.context.fillRect(0, 0, ...this.size);
    this.empty = false;
  }
  invert() {
    this.begin();
    const g = this.context;
    g.globalCompositeOperation = "source-out";
    g.fillStyle = "#fff";
    g.fillRect(0, 0, ...this.size);
    g.globalCompositeOperation = "source-over";
    this.check();
  }

  // Add the connected area of similar colour around a place (region growing), closed over small holes.
  grow(picture, place, tolerance) {
    const [width, height] = this.size;
    const copy = Object.assign(document.createElement("canvas"), { width, height }).getContext(
      "2d",
      { willReadFrequently: true },
    );
    copy.drawImage(picture, 0, 0, width, height);
    const { data } = copy.getImageData(0, 0, width, height);
    const start = Math.round(place.y) * width + Math.round(place.x),
      most = 3 * tolerance * tolerance;
    const seen = new Uint8Array(width * height),
      queue = [start];
    const colour = [data[4 * start], data[4 * start + 1], data[4 * start + 2]];
    seen[start] = 1;
    for (let next; (next = queue.pop()) !== undefined;) {
      const x = next % width;
      for (const [other, there] of [
        [next - 1, x > 0],
        [next + 1, x < width - 1],
        [next - width, next >= width],
        [next + width, next < width * (height - 1)],
      ]) {
        if (!there || seen[other]) continue;
        const d = 4 * other,
          r = data[d] - colour[0],
          g = data[d + 1] - colour[1],
          b = data[d + 2] - colour[2];
        if (r * r + g * g + b * b <= most) {
          seen[other] = 1;
          queue.push(other);
        }
      }
    }
    const now = this.data();
    for (let i = 0; i < seen.length; i++) if (seen[i]) now.data.set([255, 255, 255, 255], 4 * i);
    this.context.putImageData(now, 0, 0);
    this.stamp(seen, width);
    this.empty = false;
  }
  // Round off what was grown, so that specks inside belong to it.
  stamp(seen, width) {
    const g = this.context,
      radius = Math.max(1, width / 128);
    g.fillStyle = "#fff";
    g.beginPath();
    for (let i = 0; i < seen.length; i++) {
      if (!seen[i] || (seen[i - 1] && seen[i + 1] && seen[i - width] && seen[i + width])) continue;
      const x = i % width,
        y = Math.floor(i / width);
      g.moveTo(x + radius, y + 0.5);
      g.arc(x + 0.5, y + 0.5, radius, 0, 7);
    }
    g.fill();
  }

  // dims: darken what stays, as the drag does; else tint what was painted.
  draw(g, left, top, zoom, dims = false) {
    const [width, height] = this.size,
      t = this.tint.getContext("2d");
    t.globalCompositeOperation = "source-over";
    t.clearRect(0, 0, width, height);
    t.fillStyle = dims ? "rgb(8 10 14)" : "rgb(255 92 40)";
    t.fillRect(0, 0, width, height);
    t.globalCompositeOperation = dims ? "destination-out" : "destination-in";
    t.drawImage(this.canvas, 0, 0);
    g.save();
    g.globalAlpha = 0.5;
    g.drawImage(this.tint, left, top, width * zoom, height * zoom);
    g.restore();
  }

  // White on black, as a PNG.
  async png() {
    const [width, height] = this.size;
    const copy = Object.assign(document.createElement("canvas"), { width, height }),
      g = copy.getContext("2d");
    g.fillStyle = "#000";
    g.fillRect(0, 0, width, height);
    g.drawImage(this.canvas, 0, 0);
    return new Promise((resolve) => copy.toBlob(resolve, "image/png"));
  }

  // A PNG that was made by `png`, or any grey picture.
  async take(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    this.begin();
    const g = this.context,
      [width, height] = this.size;
    g.clearRect(0, 0, width, height);
    g.drawImage(image, 0, 0, width, height);
    const now = this.data();
    for (let i = 0; i < now.data.length; i += 4) {
      now.data[i + 3] = now.data[i];
      now.data.fill(255, i, i + 3);
    }
    g.putImageData(now, 0, 0);
    this.check();
  }
}
