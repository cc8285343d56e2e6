// A picture that a form takes: dropped, pasted, chosen from disk, from the examples or from the gallery.

import { fileUrl, get, once, thumbUrl, upload } from "./api.js";
import { append, button, dialog, h, replace, say, toast } from "./dom.js";
import { maskDialog } from "./editors.js";

export const ACCEPT =
  "image/png,image/jpeg,image/webp,image/tiff,image/bmp,image/heic,image/heif,image/avif";

// A button that opens the file chooser.
export function fileButton(
  label,
  take,
  { multiple = false, accept = ACCEPT, primary = false } = {},
) {
  const input = h("input", {
    type: "file",
    accept,
    multiple,
    "aria-label": label,
    on: {
      change: () => {
        const files = [...input.files];
        input.value = "";
        take(files);
      },
    },
  });
  return h(
    "label",
    { class: `button${primary ? " primary" : ""}` },
    input,
    h("span", { "aria-hidden": "true" }, label),
  );
}

// Let an element take dropped files.
export function droppable(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    element.classList.remove("over");
    const files = [...(event.dataTransfer?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    event.stopPropagation();
    take(files);
  });
}

// Upload; errors are shown once each. Returns what was taken.
export async function uploadAll(files, options) {
  const taken = [];
  for (const file of files) {
    try {
      taken.push(await upload(file, options));
    } catch (problem) {
      toast(`${file.name ?? "The picture"}: ${problem.message}`, "bad");
    }
  }
  return taken;
}

// One photo of a form. value: {id, name, width, height, notes, prompt?}. Options: mask (a mask can be painted).
export function pictureInput({
  label = "Photo",
  value = null,
  mask = undefined,
  onChange,
  onMask,
  examples = true,
  maskLead,
} = {}) {
  const element = h("fieldset", { class: "field" }, h("legend", {}, label));
  const body = h("div", { class: "stack tight" });
  element.append(body);
  let held = value,
    masked = mask;
  const set = (found, quiet = false) => {
    held = found;
    if (!quiet) {
      masked = null;
      onMask?.(null);
    }
    draw();
    if (!quiet) {
      onChange?.(found);
      say(found ? `${label}: ${found.name}` : `${label} removed`);
    }
  };
  const take = async (files) => {
    body.setAttribute("aria-busy", "true");
    const [first] = await uploadAll(files.slice(0, 1));
    body.removeAttribute("aria-busy");
    if (first) {
      set(first);
      if (files.length > 1) toast("Only one photo can be used here; the others were ignored.");
    }
  };
  const draw = () => replace(body, held ? picked() : drop());
  const drop = () => {
    const place = h(
      "div",
      { class: "drop" },
      h("p", {}, "Drop a photo here or paste it"),
      h(
        "div",
        { class: "row" },
        fileButton("Choose a file", take),
        examples && button("Examples", () => chooseExample().then((one) => one && set(one))),
        button("Gallery", () => chooseFromGallery().then((one) => one && set(one))),
      ),
    );
    droppable(place, take);
    return place;
  };
  const picked = () => {
    const place = h(
      "div",
      { class: "picked" },
      h("img", { src: thumbUrl(held.id), alt: `Chosen photo: ${held.name}` }),
      h(
        "div",
        { class: "stack tight" },
        h("p", { class: "name" }, held.name),
        h("p", { class: "small muted" }, held.width ? `${held.width} x ${held.height} pixels` : ""),
        (held.notes ?? []).map((note) => h("p", { class: "small muted" }, note)),
        h(
          "div",
          { class: "row" },
          button("Change", () => set(null), { class: "small" }),
          onMask &&
            button(masked ? "Change the mask" : "Mark the subject", paint, { class: "small" }),
        ),
        masked &&
          h("p", { class: "small good-text" }, "A mask is set: only the marked area may change."),
      ),
    );
    droppable(place, take);
    return place;
  };
  const paint = async () => {
    const made = await maskDialog(fileUrl(held.id), {
      existing: masked ? fileUrl(masked.id) : null,
      lead: maskLead,
    });
    if (made === null || made === undefined) return;
    if (made === "none") masked = null;
    else {
      const [taken] = await uploadAll([new File([made], "mask.png", { type: "image/png" })], {
        mask: true,
      });
      if (!taken) return;
      masked = taken;
    }
    onMask(masked);
    draw();
    say(masked ? "Mask set." : "Mask removed.");
  };
  draw();
  return Object.assign(element, {
    take,
    set,
    paint,
    setMask: (found) => {
      masked = found;
      draw();
    },
    get value() {
      return held;
    },
  });
}

// The button of an empty page: choose an example photo, and use it.
export function exampleButton(use) {
  return button("Start from an example photo", () =>
    chooseExample().then((one) => one && use(one)),
  );
}

// Photos to start from; resolves to an upload with its prompt, or null.
export async function chooseExample() {
  const chosen = await picker(
    "Example photos",
    async () => {
      const found = await once("/examples/examples.json");
      return found.photos.map((one) => ({
        ...one,
        thumb: `/examples/${one.file}`,
        caption: one.prompt,
      }));
    },
    "There are no example photos.",
  );
  if (!chosen) return null;
  const [taken] = await uploadExamples([chosen.file]);
  return taken ? { ...taken, prompt: chosen.prompt, word: chosen.word } : null;
}

// Upload pictures that come with the studio.
export async function uploadExamples(names) {
  const files = [];
  for (const name of names) {
    const answer = await fetch(`/examples/${name}`);
    files.push(new File([await answer.blob()], name.replaceAll("/", "-"), { type: "image/png" }));
  }
  return uploadAll(files);
}

// Results of the gallery: one, or with `many` a list of two to four.
export function chooseFromGallery({ many = false } = {}) {
  return picker(
    "Pictures in the gallery",
    async () => {
      const found = await get("/api/gallery?most=120");
      return found.items.map((one) => ({
        ...one,
        caption: `${one.verb ?? ""} ${one.name}`.trim(),
      }));
    },
    "The gallery is empty. Results will appear there.",
    many,
  );
}

function picker(title, load, none, many = false) {
  return dialog(
    title,
    (close) => {
      const chosen = [];
      const use = button("Choose two to four", () => close(chosen), {
        class: "primary",
        disabled: true,
      });
      const pick = (found, tile) => {
        if (!many) return close(found);
        const at = chosen.indexOf(found);
        if (at >= 0) chosen.splice(at, 1);
        else if (chosen.length < 4) chosen.push(found);
        tile.setAttribute("aria-pressed", String(chosen.includes(found)));
        use.disabled = chosen.length < 2;
        use.textContent = use.disabled ? "Choose two to four" : `Use ${chosen.length} pictures`;
      };
      const grid = h("div", { class: "thumbs" }, h("p", { class: "muted" }, "Loading..."));
      load().then(
        (found) =>
          replace(
            grid,
            found.length
              ? found
                  .map((one) => {
                    const tile = button(null, () => pick(one, tile), { class: "tile" });
                    return tile;
                  })
                  .map((tile, i) =>
                    append(tile, [
                      h("img", { src: one(found[i]), alt: "", loading: "lazy" }),
                      h("span", { class: "cap", title: found[i].caption }, found[i].caption),
                    ]),
                  )
              : h("p", { class: "muted" }, none),
          ),
        (problem) => replace(grid, h("p", { class: "note bad" }, problem.message)),
      );
      return [grid, many && h("div", { class: "dialog-foot" }, use)];
    },
    { wide: true },
  );
}

const one = (found) => found.thumb ?? thumbUrl(found.id);
