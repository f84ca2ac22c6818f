-- GUE variant 0 for tshark, which has no dissector of its own before 4.2: splits the header and hands the inner packet
-- to tshark's own dissectors.
local gue = Proto("gue_outer", "Generic UDP Encapsulation")
local f = gue.fields
f.version = ProtoField.uint8("gue_outer.version", "Version", base.DEC, nil, 0xc0)
f.control = ProtoField.uint8("gue_outer.control", "Control", base.DEC, nil, 0x20)
f.hlen = ProtoField.uint8("gue_outer.hlen", "Header words", base.DEC, nil, 0x1f)
f.proto = ProtoField.uint8("gue_outer.proto", "Protocol", base.DEC)
f.flags = ProtoField.uint16("gue_outer.flags", "Flags", base.DEC)
f.private = ProtoField.bytes("gue_outer.private", "Private data")
f.inner = ProtoField.bytes("gue_outer.inner", "Inner packet")

function gue.dissector(buffer, packet, tree)
  local words = buffer(0, 1):bitfield(3, 5)
  local header = tree:add(gue, buffer(0, 4 + words * 4))
  header:add(f.version, buffer(0, 1))
  header:add(f.control, buffer(0, 1))
  header:add(f.hlen, buffer(0, 1))
  header:add(f.proto, buffer(1, 1))
  header:add(f.flags, buffer(2, 2))
  if words > 0 then
    header:add(f.private, buffer(4, words * 4))
  end
  local inner = buffer(4 + words * 4)
  header:add(f.inner, inner)
  DissectorTable.get("ip.proto"):try(buffer(1, 1):uint(), inner:tvb(), packet, tree)
end

DissectorTable.get("udp.port"):add(6080, gue)
