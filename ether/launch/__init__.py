"""What a program starts for its session: the broker's process, the instances' processes, their supervision and their
end."""
