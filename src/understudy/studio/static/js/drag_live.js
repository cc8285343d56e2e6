// The connection of a drag: commands out, frames in. Frames are drawn in order; older ones are skipped.
// Every frame is acknowledged once it is drawn or dropped, so that a slow page does not queue them.

const PATIENCE = [500, 1000, 2000, 4000, 8000];

export class LiveDrag {
  constructor() {
    this.on = {};
    // Grows over a reload of the page, so that a session's frames are never ahead of it.
    this.number = Date.now() * 1000;
    this.running = false;
    this.waiting = false;
    this.shown = -1;
    this.ready = [];
  }

  connect(session) {
    this.close();
    Object.assign(this, {
      session,
      tries: 0,
      stale: 0,
      arrived: 0,
      shown: 0,
      running: false,
      head: null,
    });
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const path = `/api/drag/sessions/${this.session}?acknowledge=1`;
    const socket = new WebSocket(`${scheme}://${location.host}${path}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.on.state?.("Opening the generator. The first time takes some seconds.");
    // What was sent over a connection that was lost may never be answered.
    this.stale = 0;
    this.waiting = false;
    socket.onmessage = (event) => {
      if (this.socket === socket) this.take(event.data);
    };
    socket.onclose = () => {
      if (this.socket !== socket) return;
      this.on.state?.("The connection was lost. Connecting again.");
      this.timer = setTimeout(
        () => this.open(),
        PATIENCE[Math.min(this.tries++, PATIENCE.length - 1)],
      );
    };
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  // Commands that change what is shown make frames that were sent before them stale.
  send(name, fields = {}) {
    if (this.socket?.readyState !== WebSocket.OPEN) return 0;
    this.number += 1;
    if (["points", "goto", "undo", "redo", "mask", "settings"].includes(name)) {
      this.stale = this.number;
      this.waiting = true;
    }
    if (name === "run") this.running = true;
    if (name === "pause") this.running = false;
    this.socket.send(JSON.stringify({ do: name, re: this.number, ...fields }));
    return this.number;
  }

  take(data) {
    if (typeof data === "string") return this.told(JSON.parse(data));
    const length = new DataView(data).getUint32(0);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    this.tries = 0;
    this.answered = Math.max(this.answered ?? 0, head.re);
    const socket = this.socket;
    const drawn = () => {
      if (socket.readyState === WebSocket.OPEN) socket.send('{"do": "drawn"}');
    };
    if (this.answered < this.stale) return drawn();
    const order = ++this.arrived;
    const decoded = createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" })).then(
      (bitmap) => {
        if (order < this.shown) return bitmap.close();
        this.shown = order;
        this.waiting = false;
        this.running = head.running;
        this.on.frame?.(head, bitmap);
        this.bitmap?.close();
        this.bitmap = bitmap;
        this.head = head;
        for (const call of this.ready.splice(0)) call();
      },
    );
    // After the browser has painted it: a page that decodes quickly may paint slowly.
    decoded.finally(() => (document.hidden ? drawn() : requestAnimationFrame(drawn)));
  }

  told(message) {
    if (message.event === "gone") {
      this.close();
      return this.on.gone?.(message.message);
    }
    if (message.re < 0) return; // the answer to a film or a save, which is shown there
    if (message.event === "error" || message.event === "note") {
      this.answered = Math.max(this.answered ?? 0, message.re ?? 0);
      return this.on.error?.(message.message);
    }
    if (message.event === "closed") {
      this.close();
      this.running = false;
      return this.on.closed?.(message.message);
    }
    if (message.event === "died") {
      this.on.error?.(message.message);
      this.connect(this.session);
    }
  }

  whenReady(call) {
    if (this.head) call();
    else this.ready.push(call);
  }
}
