"""The data plane: answers `/ml/{model}/predict` from the routing snapshot, whatever else is dead.

Parent (`__main__`) -> workers (`worker`) -> `app` -> `forward`. One snapshot document becomes one `routes.Routes`,
in which everything a request needs is computed once; a request only looks up, calls, records and answers.
"""
