"""Generate answers, have them judged, and score them. Nothing here knows Ray."""
