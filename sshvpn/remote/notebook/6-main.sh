# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# Ending, and what is asked for.

end_if_asked() { # FILE: of the server that was examined
  case " $ending " in *" $pid "*) ;; *) return ;; esac
  kill "$pid"
  tries=400
  while is_alive "$pid" && [ "$tries" -gt 0 ]; do
    nap
    tries=$((tries - 1))
  done
  if is_alive "$pid"; then say "left $pid"; else
    rm -f "$state/$pid"
    say "ended $pid"
  fi
}

if [ -n "${SSHVPN_STAGE:-}" ]; then
  stage
  exit
fi
text=$s
directory='' words='' way=auto token='' shared=no within=100 ending='' boot=''
say "hello 1 $HOME"
while IFS= read -r line; do
  value=${line#* }
  case $line in
  'directory '*) directory=$value ;;
  'way '*) way=$value ;;
  'word '*) words=$words${words:+$nl}$value ;;
  'token '*) token=$value ;;
  words) words= ;;
  shared) shared=yes ;;
  unshared) shared=no ;;
  'within '*) within=$value ;;
  'pid '*) ending="$ending $value" ;;
  look) look ;;
  start) start ;;
  stop)
    each_server end_if_asked
    ending=
    say bye
    ;;
  *) fail "malformed a line that is not understood" ;;
  esac
done
