"""The portal as several processes on several hosts would be: two web processes and two
gateways behind nginx, and two workers."""
