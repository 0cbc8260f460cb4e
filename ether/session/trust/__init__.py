"""The lab on this machine: its authority and members, how devices join it and renew."""
