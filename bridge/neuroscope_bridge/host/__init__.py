"""Models, sessions and jobs of a server, independent of ZeroMQ and HTTP.

A `Host` holds the models and the sessions of one process. A `Session` is one client's workspace, handles, and queue of jobs. A
`Job` is one request that computes. A door turns requests into jobs, runs them, and sends their answers.
"""

from neuroscope_bridge.host.host import Host, HostOptions
from neuroscope_bridge.host.jobs import Job, Stop
from neuroscope_bridge.host.session import Session

__all__ = ["Host", "HostOptions", "Job", "Session", "Stop"]
