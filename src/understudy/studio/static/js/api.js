// All requests to the server. An error is one line: what went wrong and what to do.

export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const SILENT = "The studio server does not answer. Start it again with: understudy studio";

async function request(method, path, { body, form, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      signal,
      credentials: "same-origin",
      body: form ?? (body === undefined ? undefined : JSON.stringify(body)),
    });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError(SILENT);
  }
  const text = await answer.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    data = null;
  }
  if (answer.ok) return data;
  if (answer.status === 401) location.assign("/"); // the page to sign in
  throw new ApiError(line(data, answer.status), answer.status);
}

// The one line of an error answer, whichever part of the server wrote it.
function line(data, status) {
  const found = data?.error ?? data?.detail ?? data?.message;
  if (typeof found === "string") return found;
  if (typeof found?.message === "string") return found.message;
  if (Array.isArray(found) && found.length)
    return found.map((one) => `${(one.loc ?? []).slice(1).join(".")}: ${one.msg}`).join("; ");
  return `The server answered with an error (${status}). See its terminal for details.`;
}

export const get = (path, options) => request("GET", path, options);
export const post = (path, body = {}) => request("POST", path, { body });
export const put = (path, body = {}) => request("PUT", path, { body });
export const remove = (path) => request("DELETE", path);

export function upload(file, { mask = false } = {}) {
  const form = new FormData();
  form.append("file", file, file.name ?? "picture.png");
  return request("POST", mask ? "/api/masks" : "/api/uploads", { form });
}

export function readRecipe(file) {
  const form = new FormData();
  form.append("file", file, file.name ?? "picture.png");
  return request("POST", "/api/recipe", { form });
}

export const fileUrl = (id) => `/api/files/${encodeURIComponent(id)}`;
export const thumbUrl = (id) => `/api/files/${encodeURIComponent(id)}/thumb`;

const known = new Map();
// An answer that stays the same while the page is open.
export function once(path) {
  if (!known.has(path))
    known.set(
      path,
      get(path).catch((problem) => {
        known.delete(path);
        throw problem;
      }),
    );
  return known.get(path);
}

export function forget(path) {
  known.delete(path);
}
