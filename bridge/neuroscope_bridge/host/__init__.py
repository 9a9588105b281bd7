"""What serves, whatever door a request came through: models, sessions, jobs. Knows nothing of ZeroMQ or HTTP.

A `Host` holds the models and the sessions of one process. A `Session` is one client's workspace, its handles, and its jobs
in their order. A `Job` is one request that computes. A door turns what it receives into jobs, runs them, and sends
what they answer.
"""

from neuroscope_bridge.host.host import Host, HostOptions
from neuroscope_bridge.host.jobs import Job, Stop
from neuroscope_bridge.host.session import Session

__all__ = ["Host", "HostOptions", "Job", "Session", "Stop"]
