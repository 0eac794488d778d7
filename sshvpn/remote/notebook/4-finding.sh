# shellcheck shell=sh disable=SC2034,SC2154 # the parts share their variables
# In the environment of the login shell: which Jupyter.

has_module() { "$1" -c 'import sys, importlib.util as u; sys.exit(not u.find_spec(sys.argv[1]))' "$2"; } 2>/dev/null

conda_prefix() { # NAME: sets prefix and root
  root=
  for candidate in "${CONDA_EXE%/bin/conda}" "${MAMBA_ROOT_PREFIX:-}" "$HOME"/miniconda3 \
    "$HOME"/anaconda3 "$HOME"/miniforge3 "$HOME"/mambaforge "$HOME"/micromamba /opt/conda \
    /opt/miniconda3 /opt/anaconda3 /opt/miniforge3; do
    [ -n "$candidate" ] || continue
    if [ -d "$candidate/conda-meta" ] || [ -d "$candidate/envs" ]; then
      root=$candidate
      break
    fi
  done
  case $1 in
  base) prefix=$root ;;
  */*)
    expanded "$1"
    prefix=$path
    ;;
  *)
    prefix=$root/envs/$1
    [ -d "$prefix" ] || prefix=$HOME/.conda/envs/$1
    # conda notes there all that it has made anywhere.
    [ -d "$prefix" ] || prefix=$(grep -s "/$(printf '%s' "$1" | sed 's/[][\.*^$]/\\&/g')\$" "$HOME/.conda/environments.txt" | sed 1q)
    ;;
  esac
  [ -n "$prefix" ] && [ -d "$prefix/bin" ]
}

# ROOT PREFIX COMMAND...: as conda does it, or as micromamba, which has no such file.
activate='
if ! { [ -r "$1/etc/profile.d/conda.sh" ] && . "$1/etc/profile.d/conda.sh" && conda activate "$2"; }; then
  export CONDA_PREFIX="$2" PATH="$2/bin:$PATH"
  for script in "$2"/etc/conda/activate.d/*.sh; do [ ! -r "$script" ] || . "$script"; done
fi
shift 2
exec "$@"'

in_prefix() { # PREFIX: sets program
  for name in jupyter-lab jupyter-notebook jupyter-nbclassic; do
    program=$1/bin/$name
    [ ! -x "$program" ] || return 0
  done
  return 1
}

# Finds Jupyter in the environment of the login shell, starts it, and waits until it listens.
# Ends with 8 where there is none.
stage() {
  work=$state/starting
  # A login shell that took long may find that nobody waits for it any more.
  read -r starter <"$work/starter" && [ "$starter" = "$SSHVPN_STARTER" ] || exit 1
  : >"$work/begun"
  way=$SSHVPN_WAY here=$SSHVPN_HERE directory=$SSHVPN_DIRECTORY shared=$SSHVPN_SHARED
  within=$SSHVPN_WITHIN
  IFS=$nl
  set -f
  # shellcheck disable=SC2086 # split on purpose
  set -- $SSHVPN_WORDS
  set +f
  unset IFS
  unset SSHVPN_STARTER SSHVPN_STAGE SSHVPN_NONCE SSHVPN_STATE SSHVPN_HERE SSHVPN_DIRECTORY SSHVPN_WAY
  unset SSHVPN_WORDS SSHVPN_SHARED SSHVPN_WITHIN
  case $way in
  command) command -v "$1" >/dev/null || fail "no_command $1" ;;
  python)
    case $1 in */* | '~'*) expanded "$1" ;; *) path=$(command -v "$1") || fail "no_command $1" ;; esac
    [ -x "$path" ] || fail "no_command $path"
    if has_module "$path" jupyterlab; then set -- "$path" -m jupyterlab
    elif has_module "$path" notebook; then set -- "$path" -m notebook
    else fail "none_in $path"; fi
    ;;
  venv)
    expanded "$1"
    [ -x "$path/bin/python" ] || fail "no_venv $path"
    in_prefix "$path" || fail "none_in $path/bin/python"
    export VIRTUAL_ENV="$path" PATH="$path/bin:$PATH"
    set -- "$program"
    ;;
  conda)
    conda_prefix "$1" || fail "no_conda_env $1"
    in_prefix "$prefix" || fail "none_in_conda $prefix"
    say "took $program"
    # What activates it is written for bash, and ends other shells (an array, "function").
    launch "$(command -v bash || echo /bin/sh)" -c "$activate" conda "$root" "$prefix" "$program"
    return
    ;;
  *)
    set --
    for name in jupyter-lab jupyter-notebook jupyter-nbclassic; do
      ! program=$(command -v "$name") || { set -- "$program" && break; }
    done
    if [ $# -eq 0 ] && program=$(command -v jupyter); then
      for name in lab notebook; do
        ! "$program" "$name" --version >/dev/null 2>&1 || { set -- "$program" "$name" && break; }
      done
    fi
    if [ $# -eq 0 ] && program=$(command -v python3); then
      for name in jupyterlab notebook; do
        ! has_module "$program" "$name" || { set -- "$program" -m "$name" && break; }
      done
    fi
    [ $# -gt 0 ] || exit 8
    ;;
  esac
  say "took $*"
  launch "$@"
}
