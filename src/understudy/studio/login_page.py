"""The page that asks for the token: one file, because no other is served without it."""

from __future__ import annotations

import base64
import hashlib
from html import escape

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif;
  --bg: light-dark(#f4f5f7, #14171c); --surface: light-dark(#fff, #1c2027);
  --line: light-dark(#d6dae1, #353c48); --strong: light-dark(#8a93a3, #6d7788);
  --text: light-dark(#1b1f27, #e7e9ee); --muted: light-dark(#535d6d, #a6aebb);
  --accent: light-dark(#2456c8, #8fb2ff); --on: light-dark(#fff, #0d1a35);
  --danger: light-dark(#b3261e, #ff9d94); }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 16px;
  background: var(--bg); color: var(--text); }
main { width: min(400px, 100%); padding: 28px; background: var(--surface);
  border: 1px solid var(--line); border-radius: 12px; }
h1 { margin: 0 0 20px; font-size: 1.25rem; display: flex; align-items: center; gap: 10px; }
h1 span { font-weight: 400; color: var(--muted); }
svg { width: 30px; height: 30px; flex: none; }
form { display: flex; flex-direction: column; gap: 14px; }
label { font-weight: 600; display: flex; flex-direction: column; gap: 4px; }
input, button { font: inherit; border-radius: 8px; padding: 9px 12px; min-height: 44px; }
input { width: 100%; color: var(--text); background: var(--surface);
  border: 1px solid var(--strong); }
button { border: 0; background: var(--accent); color: var(--on); font-weight: 650;
  cursor: pointer; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
p { margin: 0; color: var(--muted); font-size: 0.9rem; }
p[role="alert"] { color: var(--danger); font-weight: 600; }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in - understudy studio</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><main><h1><svg viewBox="0 0 32 32" aria-hidden="true">
<rect width="32" height="32" rx="7" fill="#2456c8"/>
<circle cx="12" cy="13" r="5" fill="none" stroke="#fff" stroke-width="2.4"/>
<circle cx="20" cy="19" r="5" fill="#fff"/></svg>understudy <span>studio</span></h1>
<form method="post" action="/api/login">{problem}
<label>Token <input name="token" type="password" autofocus required
autocomplete="current-password"></label>
<button>Sign in</button>
<p>The terminal in which the studio was started shows the token.</p></form></main></body></html>
"""

# What a Content-Security-Policy names to allow this style and no other.
STYLE = "'sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'"


def login_page(problem: str = "") -> bytes:
    """The page, with what was wrong the last time."""
    told = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return _PAGE.format(style=_STYLE, problem=told).encode()
