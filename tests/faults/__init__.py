"""Real processes are killed, flushed and restarted under load; what is left behind is judged by checkers."""
