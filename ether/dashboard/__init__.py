"""One page in the browser that shows a running session, live, and lets its owner act (`ether dashboard`).

A member of the session as any other: a client, with nothing special in the core. `application` serves; `watched_lab`
knows what is to be shown; `membership` keeps the place in the session; `static` is the page itself, without a build
step and without a request to any other host.
"""

LOOPBACK = "127.0.0.1"
"""Where the page is served, unless somebody asks for more."""
