"""From the bundle to a live ranking service: fast scores, live events, HTTP.

Start at `engine.py`, which joins the bundle, the scorer and the live state; `app.py` is what HTTP makes of it.
"""
