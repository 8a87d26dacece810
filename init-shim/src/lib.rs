//! Guest PID 1 and exec agent.
