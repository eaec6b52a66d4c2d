defmodule RenderedTest do
  use ExUnit.Case

  test "only a token that was issued and has not lapsed is good" do
    now = DateTime.utc_now()
    {token, stored} = ClientToken.issue("me", ["read"], DateTime.add(now, 60, :second))
    {foreign, _other} = ClientToken.issue("me", ["read"], DateTime.add(now, 60, :second))
    find = fn id -> if id == stored.id, do: {:ok, stored}, else: :error end
    assert ClientToken.check(token, find, now) == {:ok, stored}
    [_id, secret] = String.split(foreign, ".")
    assert ClientToken.check(stored.id <> "." <> secret, find, now) == :error
    assert ClientToken.check(foreign, find, now) == :error
    assert ClientToken.check("no token", find, now) == :error
    assert ClientToken.check(token, find, DateTime.add(now, 60, :second)) == :error
  end
end
