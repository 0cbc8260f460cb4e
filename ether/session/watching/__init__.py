"""What a member sees of its session without being asked for anything: heartbeats, rates, who publishes to whom."""
