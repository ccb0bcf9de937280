#include <stdexcept>
#include <vector>
#include <map>
#include <string>
#include <iostream>
int f(int i){ if(i%3==0) throw std::runtime_error("x"); if(i%5==0) throw i; return i; }
int main(){ std::map<std::string,int> m; long s=0; for(int i=0;i<2000;i++){ try{ s+=f(i); } catch(std::exception&e){ m[e.what()+std::to_string(i%7)]++; } catch(int k){ s-=k; } } std::cout<<s<<" "<<m.size()<<"\n"; }
