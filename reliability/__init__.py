"""What kills, full disks, bad input and long runs do to the binaries."""
