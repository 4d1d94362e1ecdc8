"""The portal as several processes on several hosts would be: two web processes behind nginx, and
two workers."""
