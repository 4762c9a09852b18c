"""powercut: concurrent workloads, a power cut at every sync point, oracles that know what was promised.

Data flows one way: Workload -> (execute) -> History and WriteLog -> CrashState -> (recover) -> Tree
-> (judge) -> Finding. `workload`, `writelog` and `state` are pure data; only `kernel` touches the
operating system; `campaign` joins them; `cli` is what people see.
"""

__version__ = "0.1.0"
