"""Web views: questions and doors over HTTP, on the worker.

    routes (one table)  ->  Faust views  ->  handlers  ->  topology/questions over the worker's tables
          |                     ^
     /openapi.json      problems: every error a problem, every answer under the same headers

`attach(app, services)` puts them on a Faust app before it starts.
"""

from milepost.agents.views.routes import attach
from milepost.agents.views.services import Health, SendFailed, Services

__all__ = ["Health", "SendFailed", "Services", "attach"]
