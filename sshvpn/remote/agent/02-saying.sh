# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Saying, ending.

say() { printf '%s %s\n' "$nonce" "$*"; }

# Makes one line of what a program printed.
one_line() {
  # shellcheck disable=SC2086 # split on purpose
  set -- $1
  line=$*
}

fail() { # CODE TEXT: undoes all, says why, ends
  fail_code=$1
  shift
  one_line "$*"
  finish 1 "error $fail_code $line"
}

run() { # CODE COMMAND...: fails with what it said
  run_code=$1
  shift
  run_text=$("$@" 2>&1 </dev/null) || fail "$run_code" "$*: $run_text"
}

finish() { # STATUS WORDS: undoes all that is ours, says WORDS, ends
  trap '' TERM HUP INT
  disarm
  finish_status=$1
  shift
  give_back
  if is_holder; then
    undo_label
    [ -z "$problems" ] || say "left $problems"
  fi
  say "$*"
  if [ -n "$end_session" ] && [ -n "$session" ]; then
    nap # what was said is on its way
    kill "$session"
  fi
  exit "$finish_status"
}
