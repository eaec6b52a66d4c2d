defmodule RenderedTest do
  use ExUnit.Case

  test "only the right password is valid" do
    password = "correct horse battery"
    assert {:ok, stored} = UserPassword.hash(password)
    refute stored =~ password
    assert UserPassword.valid?(stored, password)
    refute UserPassword.valid?(stored, password <> "x")
    refute UserPassword.valid?("damaged", password)
    refute UserPassword.no_user(password)
    assert UserPassword.hash("short") == {:error, :too_short}
    refute UserPassword.needs_rehash?(stored)
    assert UserPassword.needs_rehash?(String.replace(stored, "600000", "1000"))
  end
end
