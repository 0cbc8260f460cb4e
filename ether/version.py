"""The version of Ether, in one place."""

VERSION = "0.1.0"
